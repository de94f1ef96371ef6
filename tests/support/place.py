"""A folder with everything the command needs: a database, a configuration, a backup root, a state folder."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parents[1] / "data" / "scpln-sample.db"
COMMAND = Path(sys.executable).with_name("scpln-backup")

_CONFIG = """\
environment = "test"
locale = "en"
[database]
path = "{folder}/data/scpln.db"
env_file = ""
[backup]
root = "{folder}/backups"
[schedule]
timezone = "Asia/Tokyo"
[state]
directory = "{folder}/state"
[web]
listen = "127.0.0.1:0"
[audit]
log = "{folder}/backup.log"
"""


class Place:
    """`folder` is the test's own; the sample database is at `source`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "data" / "scpln.db"
        self.root = folder / "backups"
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.source.parent.mkdir()
        shutil.copyfile(SAMPLE, self.source)
        self.config.write_text(_CONFIG.format(folder=folder), encoding="utf-8")

    def configure(self, section: str, **values: object) -> None:
        """Set keys of a section, of those the configuration has already or of a new one."""
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        text = self.config.read_text(encoding="utf-8")
        heading = f"[{section}]\n"
        text = text.replace(heading, heading + lines) if heading in text else text + heading + lines
        self.config.write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [str(COMMAND), "-c", str(self.config), *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        """Nothing of the caller's: a SCPLN_DB of theirs would win over the configuration."""
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **extra}

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one document that a verb prints, after checking its exit code."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def backup(self) -> dict[str, Any]:
        """A good backup's document."""
        document: dict[str, Any] = self.json("backup")
        return document

    def listed(self) -> list[dict[str, Any]]:
        artifacts: list[dict[str, Any]] = self.json("list")
        return artifacts

    def legacy(self, name: str, *, days_old: float, content: bytes | None = None) -> Path:
        """An artifact as the old procedure left it: `sqlite3 .backup` and gzip, no manifest."""
        path = self.root / "2025" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = self.source.read_bytes() if content is None else content
        path.write_bytes(subprocess.run(["gzip", "-c"], input=raw, capture_output=True, check=True).stdout)
        self.age(path, days_old)
        return path

    @staticmethod
    def age(path: Path, days: float) -> None:
        moment = path.stat().st_mtime - days * 86400
        os.utime(path, (moment, moment))


def rows(database: Path) -> dict[str, int]:
    """Rows per table of a sound database."""
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names}
