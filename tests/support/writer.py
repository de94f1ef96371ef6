"""The application's side of a database, in processes of its own, as SQLite's locks are between processes.

`Writer` keeps committing; what it writes satisfies `check_invariant` at every commit and at no instant between two.
`Session` is a connection that does what it is told, one statement at a time, and can be killed in the middle.

Both use the database as SQLAlchemy does by default: short deferred transactions, a busy timeout of five seconds.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from support.databases import LONGEST_RUN_MS, SHORTEST_RUN_MS

BUSY_TIMEOUT_SECONDS = 5.0

_ACCOUNTS = 20
_SETUP = """
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE entry (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, amount INTEGER NOT NULL, filler BLOB);
CREATE INDEX entry_account ON entry (account, amount);
CREATE TABLE ledger (id INTEGER PRIMARY KEY, commits INTEGER NOT NULL, entries INTEGER NOT NULL, run_ms INTEGER NOT NULL);
"""


class Report(NamedTuple):
    """What the writer lived through: `seconds` has the duration of each transaction, from BEGIN to commit."""

    seconds: list[float]
    errors: list[str]
    rolled_back: int
    vacuums: int

    def percentile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def prepare(path: Path) -> None:
    """Give a grown database the tables of the invariant, and free pages all over the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA synchronous = OFF; BEGIN;" + _SETUP)
        db.execute("UPDATE runs SET duration_ms = ? WHERE duration_ms < ?", (SHORTEST_RUN_MS, SHORTEST_RUN_MS))
        db.execute("DELETE FROM runs WHERE rowid % 8 = 0")
        db.executemany("INSERT INTO account VALUES (?, 0)", ((i,) for i in range(_ACCOUNTS)))
        db.execute("INSERT INTO ledger SELECT 1, 0, 0, sum(duration_ms) FROM runs")
        db.execute("COMMIT")


def check_invariant(db: sqlite3.Connection) -> list[str]:
    """What is wrong with a copy of a database that a `Writer` writes; empty when nothing is."""
    problems = [f"integrity_check: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    wrong = db.execute(
        "SELECT count(*) FROM account "
        "WHERE balance != (SELECT coalesce(sum(amount), 0) FROM entry WHERE account = account.id)"
    ).fetchone()[0]
    if wrong:
        problems.append(f"{wrong} balances are not the sum of their entries")
    found = db.execute("SELECT (SELECT count(*) FROM entry), (SELECT sum(duration_ms) FROM runs)").fetchone()
    noted = db.execute("SELECT entries, run_ms FROM ledger").fetchone()
    if found != noted:
        problems.append(f"entries and milliseconds are {found}, and the ledger says {noted}")
    return problems


class _Child:
    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the process ended with {self._process.wait()}")
        return json.loads(line)

    def kill(self) -> None:
        """End it as a power cut would: nothing is rolled back, closed or checkpointed."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Writer(_Child):
    """Commits every few milliseconds until stopped. Entered once its first transaction is committed.

    A rough one also spills its cache and rolls back, moves large rows about, and vacuums every so often.
    """

    def __init__(self, path: Path, *, rough: bool = False, pause_ms: float = 4, seed: int = 1) -> None:
        super().__init__("write", str(path), str(int(rough)), str(pause_ms), str(seed))
        self._answer()

    def stop(self) -> Report:
        """Let it finish its transaction, and have its report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        report = Report(*self._answer())
        self._process.wait()
        return report


class Session(_Child):
    """One connection of another process."""

    def __init__(self, path: Path, *statements: str) -> None:
        super().__init__("session", str(path))
        for statement in statements:
            self.run(statement)

    def run(self, statement: str) -> list[list[Any]]:
        """Execute a statement and return its rows; raise sqlite3.Error as the process got it."""
        self.start(statement)
        return self.finish()

    def start(self, statement: str) -> None:
        """Have a statement executed, without waiting for its end; `finish` does."""
        self._tell(statement)

    def finish(self) -> list[list[Any]]:
        answer = self._answer()
        if isinstance(answer, str):
            raise sqlite3.OperationalError(answer)
        rows: list[list[Any]] = answer
        return rows


class _Work:
    """The writer's process."""

    def __init__(self, path: str, *, rough: bool, pause: float, seed: int) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        self._rough, self._pause, self._rng = rough, pause, random.Random(seed)
        self._runs = [row[0] for row in self._db.execute("SELECT rowid FROM runs")]
        self._report = Report([], [], 0, 0)

    def loop(self) -> Report:
        count = 0
        while not _stdin_closed(self._pause):
            count += 1
            began = time.monotonic()
            try:
                self._transaction(count)
            except sqlite3.Error as error:
                self._report.errors.append(f"{type(error).__name__}: {error}")
                if self._db.in_transaction:
                    self._db.rollback()
            self._report.seconds.append(time.monotonic() - began)
            if count == 1:
                print("1", flush=True)
        return self._report

    def _transaction(self, count: int) -> None:
        if self._rough and count % 150 == 0:
            self._db.execute("VACUUM")
            self._report = self._report._replace(vacuums=self._report.vacuums + 1)
            return
        spill = self._rough and count % 10 == 0
        self._db.execute(f"PRAGMA cache_size = {10 if spill else -2000}")
        self._db.execute("BEGIN")
        self._book()
        self._move_time()
        if self._rough and count % 5 == 0:
            self._move_pages()
        if spill:
            self._spill()
            self._db.execute("ROLLBACK")
            self._report = self._report._replace(rolled_back=self._report.rolled_back + 1)
        else:
            self._db.execute("COMMIT")

    def _book(self) -> None:
        """An entry more, or one less, and its account and the ledger with it."""
        account, amount = self._rng.randrange(_ACCOUNTS), self._rng.randrange(-1000, 1000)
        new, change = 1, amount
        found = self._db.execute("SELECT id, account, amount FROM entry LIMIT 1").fetchone()
        if found is not None and self._rng.random() < 0.4:
            new, account, change = -1, found[1], -found[2]
            self._db.execute("DELETE FROM entry WHERE id = ?", found[:1])
        else:
            filler = self._rng.randbytes(self._rng.randrange(2000))
            self._db.execute("INSERT INTO entry (account, amount, filler) VALUES (?, ?, ?)", (account, amount, filler))
        self._db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (change, account))
        self._db.execute("UPDATE ledger SET commits = commits + 1, entries = entries + ?", (new,))

    def _move_time(self) -> None:
        """Some milliseconds from one run to another, anywhere in the file; their sum stays what it is."""
        one, other = self._rng.sample(self._runs, 2)
        low, high = SHORTEST_RUN_MS, LONGEST_RUN_MS
        least, most = self._db.execute(
            "SELECT min(duration_ms), max(duration_ms) FROM runs WHERE rowid IN (?, ?)", (one, other)
        ).fetchone()
        span = self._rng.randrange(1, 1000)
        if least - span < low or most + span > high:
            return
        self._db.execute("UPDATE runs SET duration_ms = duration_ms - ? WHERE rowid = ?", (span, one))
        self._db.execute("UPDATE runs SET duration_ms = duration_ms + ? WHERE rowid = ?", (span, other))

    def _move_pages(self) -> None:
        """A run's row written anew at another place, and its old pages freed."""
        row = self._rng.choice(self._runs)
        text = self._rng.randbytes(self._rng.randrange(20_000, 60_000)).hex()
        self._db.execute("UPDATE runs SET cost_trace = ? WHERE rowid = ?", (text, row))

    def _spill(self) -> None:
        """More changed pages than the cache holds: they reach the database file before any commit."""
        for row in self._rng.sample(self._runs, 20):
            self._db.execute("UPDATE runs SET summary = summary || 'x', config_id = NULL WHERE rowid = ?", (row,))


def _stdin_closed(seconds: float) -> bool:
    import select  # noqa: PLC0415 - for the child alone

    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _obey(path: str) -> None:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    for line in sys.stdin:
        try:
            answer: object = db.execute(json.loads(line)).fetchall()
        except sqlite3.Error as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


def main() -> None:
    mode, path, *rest = sys.argv[1:]
    if mode == "session":
        _obey(path)
    else:
        rough, pause_ms, seed = rest
        work = _Work(path, rough=rough == "1", pause=float(pause_ms) / 1000, seed=int(seed))
        print(json.dumps(work.loop()))


if __name__ == "__main__":
    main()
