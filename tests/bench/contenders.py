"""Who is measured: the procedure that scpln-backup replaces, that procedure with faster compressors, and ours."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import tomli_w

from scpln_backup.model import Compression, Preset

_COPY_THEN = 'sqlite3 "$1" ".backup \'$2/copy.db\'"; {compressor} -c "$2/copy.db" >"$2/artifact"; rm "$2/copy.db"'


class Contender(NamedTuple):
    """`tools` must be installed. `proven`: the copy is checked, and what was written is read back and compared."""

    name: str
    tools: tuple[str, ...]
    compressor: str = ""
    compression: Compression = Compression.GZIP
    preset: Preset | None = None

    @property
    def proven(self) -> bool:
        return self.preset is not None

    @property
    def missing(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def command(self, database: Path, folder: Path) -> list[str]:
        """What backs `database` up into the empty `folder`."""
        if self.preset is None:
            return ["sh", "-ec", _COPY_THEN.format(compressor=self.compressor), "sh", str(database), str(folder)]
        config = folder / "config.toml"
        config.write_text(
            tomli_w.dumps(
                {
                    "database": {"path": str(database), "env_file": ""},
                    "backup": {"root": str(folder), "compression": self.compression, "preset": self.preset},
                    "state": {"directory": str(folder / "state")},
                    "audit": {"log": str(folder / "backup.log")},
                }
            )
        )
        program = Path(sys.executable).with_name("scpln-backup")
        return [str(program), "-c", str(config), "backup", "--json"]


SEED = Contender("`.backup` + gzip -6", ("sqlite3", "gzip"), compressor="gzip -6")
PEERS = [
    Contender("`.backup` + pigz -6", ("sqlite3", "pigz"), compressor="pigz -6"),
    Contender("`.backup` + zstd -1 -T2", ("sqlite3", "zstd"), compressor="zstd -q -1 -T2"),
]
BALANCED = Contender("scpln-backup, gzip, balanced", (), preset=Preset.BALANCED)
OURS = [
    Contender("scpln-backup, gzip, fast", (), preset=Preset.FAST),
    BALANCED,
    Contender("scpln-backup, gzip, small", (), preset=Preset.SMALL),
    Contender("scpln-backup, zstd, fast", (), compression=Compression.ZSTD, preset=Preset.FAST),
    Contender("scpln-backup, zstd, balanced", (), compression=Compression.ZSTD, preset=Preset.BALANCED),
]


def environment() -> dict[str, str]:
    """The caller's, without what would point the program at another database."""
    ours = ("SCPLN_DB", "REGISTRY_BACKEND", "SCPLN_BACKUP_CONFIG")
    return {name: value for name, value in os.environ.items() if name not in ours}
