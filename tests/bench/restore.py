"""How long a restore to a checked database takes, beside what a user would do instead.

    .venv/bin/python tests/bench/restore.py [--mib 1024] [--repeat 3] [--litestream PATH]

Prints the rows of the table in docs/benchmarks.md; all runs of one call, in turn, after a warm-up.
"""

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.databases import grow
from support.place import Place


def check(database: Path) -> None:
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def contenders(place: Place, litestream: str | None) -> dict[str, Callable[[Path], None]]:
    """What each does to make the new file it is given."""
    artifact = place.listed()[0]["path"]

    def ours(target: Path) -> None:
        done = place.run("restore", "--to", str(target))
        assert done.returncode == 0, done.stderr

    def stock(target: Path) -> None:
        with target.open("wb") as file:
            subprocess.run(["gunzip", "-c", artifact], stdout=file, check=True)
        subprocess.run(["sqlite3", target, "PRAGMA integrity_check"], check=True, stdout=subprocess.DEVNULL)

    found: dict[str, Callable[[Path], None]] = {"gunzip, integrity_check": stock, "scpln-backup restore --to": ours}
    if litestream is None:
        print("litestream: not given, left out")
        return found
    replica = f"file://{place.folder}/replica"
    copy = place.folder / "replicated.db"
    shutil.copyfile(place.source, copy)
    subprocess.run([litestream, "replicate", "-once", copy, replica], check=True, capture_output=True)

    def stream(target: Path) -> None:
        command = [litestream, "restore", "-integrity-check", "full", "-o", target, replica]
        subprocess.run(command, check=True, capture_output=True)

    return {**found, "litestream restore -integrity-check full": stream}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--litestream", default=shutil.which("litestream"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        place.source.unlink()
        grow(place.source, options.mib)
        place.backup()
        competing = contenders(place, options.litestream)
        seconds: dict[str, list[float]] = {}
        for number in range(options.repeat + 1):
            for name, restore in competing.items():
                target = place.folder / "restored.db"
                began = time.perf_counter()
                restore(target)
                if number:  # the first round only warms up
                    seconds.setdefault(name, []).append(time.perf_counter() - began)
                check(target)
                target.unlink()
        first = statistics.median(seconds["gunzip, integrity_check"])
        for name, measured in seconds.items():
            median = statistics.median(measured)
            print(f"| {name} | {median:.2f} | {first / median:.1f} |")


if __name__ == "__main__":
    main()
