"""Who is measured: the procedure that scpln-backup replaces, what else people use, and ours in every preset.

Each is a shell script of the commands that its own documentation gives.  In them

    DB     the live database             STORE  the folder of what is stored, kept from night to night
    WORK   a folder for what is not      NIGHT  1, 2, 3
    OUT    where a restore shall put the database, a name that is free
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import tomli_w

from scpln_backup.model import Compression, Preset

# What every restore ends with, where the tool has no check of its own.
_CHECK = """test "$(sqlite3 "$OUT" 'PRAGMA integrity_check')" = ok"""
_COPY = """sqlite3 "$DB" ".backup '$WORK/copy.db'" """
# The tools that store a file as it is get one that nobody writes, at the same path each night.
_COPY_INTO = """sqlite3 "$DB" ".backup '$WORK/copy/scpln.db'" """


class Job(NamedTuple):
    """One contender's run of several nights: `database` is the live one, `folder` its own."""

    database: Path
    folder: Path
    night: int = 1

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def out(self) -> Path:
        return self.folder / "restored.db"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DB": str(self.database),
            "STORE": str(self.store),
            "WORK": str(self.folder / "work"),
            "OUT": str(self.out),
            "NIGHT": str(self.night),
        }


class Contender(NamedTuple):
    """`tools` must be installed.

    `replace` restores in the live database's place.  `proven`: the copy is checked, and what was written is read back and compared.  `own_source`: it changes the
    database that it backs up, and so gets a copy for itself.
    """

    name: str
    tools: tuple[str, ...]
    backup: str
    restore: str
    prepare: str = ":"
    replace: str = ""
    own_source: bool = False
    preset: Preset | None = None
    compression: Compression = Compression.GZIP

    @property
    def proven(self) -> bool:
        return self.preset is not None

    @property
    def missing(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def configure(self, job: Job) -> None:
        """Write what the scripts read."""
        if self.preset is None:
            return
        text = tomli_w.dumps(
            {
                "database": {"path": str(job.database), "env_file": ""},
                "backup": {"root": str(job.store), "compression": self.compression, "preset": self.preset},
                "state": {"directory": str(job.folder / "work" / "state")},
                "service": {"units": []},
                "audit": {"log": str(job.folder / "work" / "audit.log")},
                "web": {"listen": "127.0.0.1:0"},
            }
        )
        (job.folder / "work" / "config.toml").write_text(text)


def environment(job: Job) -> dict[str, str]:
    """The caller's, without what would point a program at another database or repository."""
    strange = ("SCPLN_DB", "REGISTRY_BACKEND", "SCPLN_BACKUP_CONFIG")
    kept = {k: v for k, v in os.environ.items() if k not in strange and not k.startswith(("RESTIC_", "BORG_"))}
    work = job.folder / "work"
    return {
        **kept,
        **job.variables,
        "RESTIC_REPOSITORY": str(job.store),
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(work / "cache"),
        "BORG_REPO": str(job.store),
        "BORG_BASE_DIR": str(work),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    }


def _compressed(compress: str, ending: str, restore: str, copy: str = _COPY) -> tuple[str, str]:
    """The scripts of: copy, compress, remove the copy."""
    artifact = f'"$STORE/$NIGHT.db.{ending}"'
    backup = f'{copy}; {compress} -c "$WORK/copy.db" >{artifact}; rm "$WORK/copy.db"'
    return backup, f'{restore} {artifact} >"$OUT"; {_CHECK}'


_ZSTD_BACKUP, _ZSTD_RESTORE = _compressed("zstd -q -1 -T0", "zst", "unzstd -q -c")
_VACUUM_BACKUP, _VACUUM_RESTORE = _compressed(
    "zstd -q -3 -T0", "zst", "unzstd -q -c", """sqlite3 "$DB" "VACUUM INTO '$WORK/copy.db'" """
)
_PIGZ_BACKUP, _PIGZ_RESTORE = _compressed("pigz", "gz", "unpigz -c")
_GZIP_BACKUP, _GZIP_RESTORE = _compressed("gzip", "gz", "gunzip -c")

SEED = Contender("`.backup` + gzip", ("sqlite3", "gzip"), _GZIP_BACKUP, _GZIP_RESTORE)
LITESTREAM = Contender(
    "litestream",
    ("litestream",),
    'litestream replicate -once "$DB" "file://$STORE"',
    'litestream restore -integrity-check full -o "$OUT" "file://$STORE"',
    own_source=True,
)
RESTIC = Contender(
    "restic, of a `.backup`",
    ("sqlite3", "restic"),
    f'{_COPY_INTO}; restic backup -q "$WORK/copy"; rm "$WORK/copy/scpln.db"',
    f'restic restore -q latest --target "$OUT.d"; mv "$OUT.d$WORK/copy/scpln.db" "$OUT"; rm -r "$OUT.d"; {_CHECK}',
    prepare='restic init -q; mkdir "$WORK/copy"',
)
BORG = Contender(
    "borg, of a `.backup`",
    ("sqlite3", "borg"),
    f'{_COPY_INTO}; borg create --compression zstd "::$NIGHT" "$WORK/copy"; rm "$WORK/copy/scpln.db"',
    f'mkdir "$OUT.d"; (cd "$OUT.d"; borg extract "::$NIGHT"); mv "$OUT.d$WORK/copy/scpln.db" "$OUT"; '
    f'rm -r "$OUT.d"; {_CHECK}',
    prepare='borg init --encryption=none; mkdir "$WORK/copy"',
)
PEERS = (
    Contender("`.backup` + pigz", ("sqlite3", "pigz"), _PIGZ_BACKUP, _PIGZ_RESTORE),
    Contender("`.backup` + zstd -1 -T0", ("sqlite3", "zstd"), _ZSTD_BACKUP, _ZSTD_RESTORE),
    Contender("`VACUUM INTO` + zstd -T0", ("sqlite3", "zstd"), _VACUUM_BACKUP, _VACUUM_RESTORE),
    LITESTREAM,
    RESTIC,
    BORG,
)
PROGRAM = Path(sys.executable).with_name("scpln-backup")


def _ours(compression: Compression, preset: Preset) -> Contender:
    program = f'{PROGRAM} -c "$WORK/config.toml"'
    return Contender(
        f"scpln-backup, {compression}, {preset}",
        (),
        f"{program} backup --json",
        f'{program} restore --to "$OUT" --json',
        replace=f"{program} restore --latest --yes --json",
        preset=preset,
        compression=compression,
    )


OURS = tuple(_ours(compression, preset) for compression in Compression for preset in Preset)
FAST = _ours(Compression.GZIP, Preset.FAST)
BALANCED = _ours(Compression.GZIP, Preset.BALANCED)
EVERYBODY = (SEED, *PEERS, *OURS)
