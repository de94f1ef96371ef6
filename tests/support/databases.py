"""Databases to test with: the application's own sample, grown to any size.

    python tests/support/databases.py OUT --mib 1024 --journal-mode wal

Growth multiplies the sample's plan runs and plan series.  What repeats in the application's data (keys, structure)
repeats here too, and what differs from run to run (numbers, identifiers, times) differs, so that a grown database
compresses as the application's own would, about 9 : 1 with `gzip -6`.  The same arguments give the same rows.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parents[1] / "data" / "scpln-sample.db"
MIB = 1024 * 1024

# A run's duration always takes three bytes in its record, so that changing one rewrites a page and moves nothing.
SHORTEST_RUN_MS, LONGEST_RUN_MS = 100_000, 4_000_000

_DECIMAL = re.compile(rb"\d+\.\d+")
_VARIANTS = 6
_RUNS_A_TRANSACTION = 20
_PLANS_A_TRANSACTION = 30
_FIRST_MOMENT_MS = 1_760_000_000_000

Row = dict[str, Any]


def grow(path: Path, mib: float, journal_mode: str = "delete", *, seed: int = 1, page_size: int = 4096) -> Path:
    """Make the new file `path`, a sample grown to at least `mib` MiB; return `path`."""
    if path.exists():
        raise FileExistsError(path)
    shutil.copyfile(SAMPLE, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        if page_size != db.execute("PRAGMA page_size").fetchone()[0]:
            db.execute(f"PRAGMA page_size = {page_size}")
            db.execute("VACUUM")
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA cache_size = -65536")
        source = _Application(db, random.Random(seed))
        while db.execute("PRAGMA page_count").fetchone()[0] * page_size < mib * MIB:
            db.execute("BEGIN")
            source.work()
            db.execute("COMMIT")
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
    return path


class _Application:
    """Writes what months of the application's use would."""

    def __init__(self, db: sqlite3.Connection, rng: random.Random) -> None:
        self._db, self._rng = db, rng
        self._now = _FIRST_MOMENT_MS
        self._numbers = [round(rng.uniform(0, 500), 2) for _ in range(5000)]
        runs = _rows(db, "runs")
        self._variants = [
            {key: self._varied(value) if isinstance(value, str) else value for key, value in run.items()}
            for run in runs
            for _ in range(_VARIANTS)
        ]
        self._insert_run = _insert("runs", runs[0])
        self._version = _rows(db, "plan_versions")[0]
        self._insert_version = _insert("plan_versions", self._version)
        self._series = _rows(db, "plan_series")
        self._versions = list(dict.fromkeys(row["version_id"] for row in self._series))
        self._measured = [name for name, value in self._series[0].items() if isinstance(value, float)]
        self._insert_series = _insert("plan_series", self._series[0])

    def work(self) -> None:
        self._db.executemany(self._insert_run, (self._run() for _ in range(_RUNS_A_TRANSACTION)))
        for _ in range(_PLANS_A_TRANSACTION):
            self._plan()

    def _moment(self) -> int:
        self._now += self._rng.randrange(1_000, 100_000)
        return self._now

    def _run(self) -> Row:
        rng = self._rng
        digits = rng.sample(b"123456789", 9)
        table = bytes.maketrans(b"123456789", bytes(digits))
        row = {
            key: value.translate(table).decode() if isinstance(value, bytes) else value
            for key, value in rng.choice(self._variants).items()
        }
        row["run_id"] = f"{rng.getrandbits(128):032x}"
        row["duration_ms"] = rng.randrange(SHORTEST_RUN_MS, LONGEST_RUN_MS)
        row["started_at"] = row["created_at"] = row["updated_at"] = self._moment()
        return row

    def _varied(self, text: str) -> bytes:
        """The text with other decimals. Renaming the digits then makes any number of texts of it, at memory speed."""

        def other(found: re.Match[bytes]) -> bytes:
            return b"%.4f" % (float(found[0]) * self._rng.uniform(0.5, 1.5))

        return _DECIMAL.sub(other, text.encode())

    def _plan(self) -> None:
        """Plan once more: the versions that have series, under new names."""
        rng = self._rng
        now = self._moment()
        names = {old: f"v{now}-{rng.getrandbits(32):08x}" for old in self._versions}
        for name in names.values():
            self._db.execute(self._insert_version, self._version | {"version_id": name, "created_at": now})
        rows = []
        for base in self._series:
            start = rng.randrange(len(self._numbers) - len(self._measured))
            measured = zip(self._measured, self._numbers[start : start + len(self._measured)], strict=True)
            stamps = {"version_id": names[base["version_id"]], "created_at": now, "updated_at": now}
            rows.append(base | stamps | dict(measured))
        self._db.executemany(self._insert_series, rows)


def _rows(db: sqlite3.Connection, table: str) -> list[Row]:
    cursor = db.execute(f"SELECT * FROM {table} ORDER BY rowid")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _insert(table: str, row: Row) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"


def content_sha256(path: Path) -> str:
    """A hash of the schema and all rows, whatever pages they lie on. Opens the file as any application would."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(path)) as db:
        for line in db.iterdump():
            digest.update(line.encode())
    return digest.hexdigest()


def names(folder: Path) -> list[str]:
    """What is in a folder, sorted: to see that nothing was left in it."""
    return sorted(found.name for found in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description="Grow the application's sample database to a size.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--mib", type=float, required=True)
    parser.add_argument("--journal-mode", choices=("delete", "wal"), default="delete")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    grow(arguments.out, arguments.mib, arguments.journal_mode, seed=arguments.seed)


if __name__ == "__main__":
    main()
