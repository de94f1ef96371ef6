"""The life of a backup end to end in a scratch folder: `make smoke-test`.

Runs the installed command as an operator would, on a copy of the sample database, one line a step. The exit
code is 0 when every step was as it should be. Standard library only.
"""

import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).with_name("data") / "scpln-sample.db"
COMMAND = Path(sys.executable).with_name("scpln-backup")

CONFIG = """\
environment = "smoke-test"
locale = "en"
[database]
path = "{folder}/data/scpln.db"
env_file = "{folder}/.env"
[backup]
root = "{folder}/backups"
[state]
directory = "{folder}/state"
[web]
listen = "127.0.0.1:0"
[service]
units = []
[audit]
log = "{folder}/backup.log"
"""


class UnexpectedError(Exception):
    """A step went another way than it should."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise UnexpectedError(what)


def row_counts(database: Path) -> dict[str, int]:
    """Rows per table; UnexpectedError when SQLite finds the file damaged."""
    connection = sqlite3.connect(database)
    try:
        expect(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "integrity_check failed")
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names}
    finally:
        connection.close()


class Life:
    """The steps, in order; each leaves what later ones look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "data" / "scpln.db"
        self.config = folder / "config.toml"
        self.artifact = Path()

    def prepare(self) -> None:
        self.database.parent.mkdir()
        shutil.copyfile(SAMPLE, self.database)
        (self.folder / ".env").write_text("REGISTRY_BACKEND=db\n", encoding="utf-8")
        self.config.write_text(CONFIG.format(folder=self.folder), encoding="utf-8")

    def run(self, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, "-c", self.config, *arguments],
            # Nothing of the caller's: a SCPLN_DB of theirs would win over the configuration.
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = f"{done.stdout}{done.stderr}".strip()
        expect(done.returncode in exit_codes, f"{' '.join(arguments)} ended with {done.returncode}: {said}")
        return done

    def ask(self, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> Any:
        """What a verb prints with --json."""
        return json.loads(self.run(*arguments, "--json", exit_codes=exit_codes).stdout)

    def check_config(self) -> None:
        self.run("config", "check")

    def back_up(self) -> None:
        run = self.ask("backup")
        expect(run["outcome"] == "success", f"outcome is {run['outcome']}: {run['error']}")
        expect(run["trigger"] == "cli", f"trigger is {run['trigger']}")
        expect(run["raw_bytes"] == self.database.stat().st_size, f"raw_bytes is {run['raw_bytes']}")

    def list_one(self) -> None:
        (only,) = self.ask("list")
        expect(only["state"] == "verified", f"state is {only['state']}")
        self.artifact = Path(only["path"])
        expect(only["bytes"] == self.artifact.stat().st_size, f"bytes is {only['bytes']}")

    def check_sum(self) -> None:
        command = ["sha256sum", "--check", f"{self.artifact.name}.sha256"]
        subprocess.run(command, cwd=self.artifact.parent, check=True, capture_output=True)

    def restore_by_hand(self) -> None:
        restored = self.folder / "restored.db"
        with restored.open("wb") as target:
            subprocess.run(["gunzip", "--stdout", self.artifact], stdout=target, check=True)
        expect(row_counts(restored) == row_counts(self.database), "the row counts differ from the source's")

    def verify(self) -> None:
        (result,) = self.ask("verify")
        expect(result["ok"] and result["name"] == self.artifact.name, f"verify says {result}")

    def back_up_again(self) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute("CREATE TABLE smoke_test (at TEXT)")
        connection.close()
        self.back_up()
        newest, oldest = self.ask("list")
        expect(oldest["name"] == self.artifact.name, "the first artifact has gone or changed places")
        with gzip.open(newest["path"]) as file:
            expect(file.read() == self.database.read_bytes(), "the second artifact is not the database of now")

    def rehearse_sweep(self) -> None:
        verdicts = self.ask("sweep", "--dry-run")
        expect([one["action"] for one in verdicts] == ["keep", "keep"], f"sweep says {verdicts}")

    def pin_and_unpin(self) -> None:
        for verb, pinned in (("pin", True), ("unpin", False)):
            self.run(verb, self.artifact.name)
            listed = {one["name"]: one["pinned"] for one in self.ask("list")}
            expect(listed[self.artifact.name] is pinned, f"pinned is not {pinned} after {verb}")

    def look_at_status(self) -> None:
        status = self.ask("status", exit_codes=(0, 1))
        expect(status["health"] in {"healthy", "warning"}, f"health is {status['health']}: {status['reasons']}")
        expect(not status["overdue"], "a backup just made is overdue")

    def damage_and_verify(self) -> None:
        self.artifact.chmod(0o600)
        with self.artifact.open("r+b") as file:
            middle = self.artifact.stat().st_size // 2
            file.seek(middle)
            byte = file.read(1)[0]
            file.seek(middle)
            file.write(bytes([byte ^ 0x01]))
        (result,) = self.ask("verify", self.artifact.name, exit_codes=(1,))
        expect(result["ok"] is False and result["error"], f"verify says {result}")
        listed = {one["name"]: one["state"] for one in self.ask("list")}
        expect(listed[self.artifact.name] == "corrupt", f"state is {listed[self.artifact.name]}")

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("copy the sample database, write a configuration", self.prepare),
            ("config check", self.check_config),
            ("backup", self.back_up),
            ("list", self.list_one),
            ("sha256sum --check", self.check_sum),
            ("gunzip, integrity_check, row counts as in the source", self.restore_by_hand),
            ("verify", self.verify),
            ("backup after a change", self.back_up_again),
            ("sweep --dry-run", self.rehearse_sweep),
            ("pin, unpin", self.pin_and_unpin),
            ("status", self.look_at_status),
            ("verify of an artifact with one flipped bit", self.damage_and_verify),
        ]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="scpln-backup-smoke-") as folder:
        for name, step in Life(Path(folder)).steps():
            began = time.monotonic()
            try:
                step()
            except Exception as error:  # every kind of failure is reported in the same way
                print(f"FAIL  {name}: {error}")
                return 1
            print(f"ok    {name} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
