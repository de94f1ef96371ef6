"""What each table of a database holds: its rows and the newest instant in them, or what of it can be read.

For the loss report of a restore: the database that was replaced is looked at once more, and must stay what it was,
for people may need to dig in it.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.model import TableFacts
from scpln_backup.stages import source
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COPIED_AT_ONCE = 1 << 30

# SQLite's messages quote the database's own text, and Python then fails to decode the rubbish that it has become.
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)

# What a column's name says, one word after the other. First the words of a row's own life, the best one first.
_WRITES = (
    *("updated", "modified", "changed", "created", "inserted"),
    *("finished", "completed", "ended", "started", "submitted", "event"),
)
# Instants that are planned or agreed, not when somebody wrote the row.
_PLANNED = frozenset(
    {
        *("cutover", "deadline", "due", "effective", "eta", "expiration", "expires", "expiry", "next", "planned"),
        *("scheduled", "target", "until", "valid"),
    }
)
_UNITS = frozenset({"s", "sec", "ms", "msec", "us", "usec", "epoch", "unix", "utc"})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS = re.compile(r"[\W_]+")

# A value as microseconds since 1970, NULL when it is no instant from 2000 to 2100. Numbers tell by their size whether
# they count seconds, milliseconds or microseconds. Text needs a time of day: a date alone is a day in a plan more
# often than the moment of a write. julianday() takes text without a zone as UTC, as CURRENT_TIMESTAMP writes it, and
# is exact to the millisecond.
_INSTANT = """CASE typeof({0})
    WHEN 'text' THEN CASE
        WHEN {0} GLOB '2[01][0-9][0-9]-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]*'
            AND julianday({0}) BETWEEN 2451544.5 AND 2488069.5
        THEN CAST(round((julianday({0}) - 2440587.5) * 86400000) AS INTEGER) * 1000 END
    WHEN 'blob' THEN NULL
    ELSE CASE
        WHEN +{0} BETWEEN 946684800 AND 4102444800 THEN CAST({0} * 1000000 AS INTEGER)
        WHEN +{0} BETWEEN 946684800000 AND 4102444800000 THEN CAST({0} * 1000 AS INTEGER)
        WHEN +{0} BETWEEN 946684800000000 AND 4102444800000000 THEN CAST({0} AS INTEGER) END
    END"""


class _Clock(msgspec.Struct, frozen=True):
    """A column that may tell when a row was written. Lower tiers tell better, lower ranks win a tie."""

    column: str
    tier: int
    rank: int


class _Table(msgspec.Struct, frozen=True):
    """`name` is quoted. `key`: the columns, quoted, that the rows are stored in the order of."""

    name: str
    key: tuple[str, ...]
    indexes: tuple[str, ...]
    clocks: tuple[_Clock, ...]

    @property
    def instants(self) -> list[str]:
        return [_INSTANT.format(_quoted(clock.column)) for clock in self.clocks]


def read(path: Path, scratch: Path) -> tuple[dict[str, TableFacts], str | None]:
    """The facts of every ordinary table, and what kept the database from being read whole, in one line.

    `path` may have its -wal and -journal beside it: what SQLite would take from the one or undo with the other is
    taken and undone, in a private copy under `scratch` that is gone afterwards. Nothing of the set is changed, and no
    file is made beside it. Nobody may be writing it. Virtual tables and SQLite's own are left out.

    Never raises for what it finds. With a problem the tables are those that could be read nevertheless, none at worst;
    a table that is damaged says so in its own facts, which are what could be read of it from both ends.
    """
    nothing = _why_there_is_nothing(path)
    if nothing is not None:
        return {}, nothing
    try:
        if _needs_recovery(path):
            with tempfile.TemporaryDirectory(prefix=".tables-", dir=scratch, ignore_cleanup_errors=True) as folder:
                return _read(_copy_set(path, Path(folder)), "mode=rw")
    except OSError as error:
        tables, problem = _read(path, "mode=ro&immutable=1")
        missed = f"read without its -wal and -journal, as no copy could be made ({one_line(error)})"
        return tables, missed if problem is None else f"{missed}; {problem}"
    return _read(path, "mode=ro&immutable=1")


def _why_there_is_nothing(path: Path) -> str | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return one_line(error)
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return "it is empty (0 bytes)" if status.st_size == 0 else None


def _needs_recovery(path: Path) -> bool:
    """Whether SQLite would change what it reads from the database by a file beside it.

    A journal without its first byte is a finished one, kept for the next transaction
    (https://www.sqlite.org/fileformat2.html#the_rollback_journal).
    """
    wal, journal = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    if wal.exists() and wal.stat().st_size > 0:
        return True
    if not journal.exists():
        return False
    with journal.open("rb") as file:
        return file.read(1) not in (b"", b"\0")


def _copy_set(path: Path, folder: Path) -> Path:
    # Without the -shm: it is an index of the -wal, and SQLite makes it anew.
    for name in (path.name + "-wal", path.name + "-journal", path.name):
        original = path.with_name(name)
        if original.exists():
            _copy(original, folder / name)
    return folder / path.name


def _copy(original: Path, copy: Path) -> None:
    """Copy without moving the bytes where the file system can share them (copy_file_range(2))."""
    with original.open("rb") as reader, copy.open("xb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), _COPIED_AT_ONCE):
                pass
        except OSError:  # not every file system can; where the reason is another one, this says it again
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer)


def _read(path: Path, query: str) -> tuple[dict[str, TableFacts], str | None]:
    try:
        with closing(sqlite3.connect(source.uri(path, query), uri=True, isolation_level=None)) as connection:
            connection.text_factory = _lenient
            connection.execute("PRAGMA cell_size_check = ON")  # better an error than rows read from rubbish
            names, problem = _names(connection)
            return {name: _facts(connection, name) for name in names}, problem
    except _UNREADABLE as error:
        return {}, _says(error)


def _lenient(text: bytes) -> str:
    return text.decode(errors="replace")


def _says(error: Exception) -> str:
    return f"SQLite says: {one_line(error)}" if isinstance(error, sqlite3.Error) else "its schema is no text any more"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(connection: sqlite3.Connection) -> tuple[list[str], str | None]:
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"
    problem = None
    try:
        rows = connection.execute(query).fetchall()
    except _UNREADABLE as error:
        problem = _says(error)
        # SQLite then reads past the parts of a schema that it cannot understand, and in a file that is shorter than
        # its header says (https://www.sqlite.org/pragma.html#pragma_writable_schema). Nothing is written.
        connection.execute("PRAGMA writable_schema = ON")
        rows = list(_until_error(connection, query))
    ordinary = [
        name
        for name, sql in rows
        if isinstance(name, str)
        and not name.startswith("sqlite_")
        and not str(sql).upper().startswith("CREATE VIRTUAL")
    ]
    return ordinary, problem


def _until_error(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
    """The rows that can be read; the caller knows already that there may be an error behind them."""
    with suppress(*_UNREADABLE):
        yield from connection.execute(query, values)


def _facts(connection: sqlite3.Connection, name: str) -> TableFacts:
    try:
        table = _describe(connection, name)
        what = ", ".join(["count(*)", *(f"max({instant})" for instant in table.instants)])
    except _UNREADABLE as error:
        return TableFacts(problem=_says(error))
    try:
        rows, *newest = connection.execute(f"SELECT {what} FROM {table.name}").fetchone()  # noqa: S608 - quoted
    except _UNREADABLE as error:
        return _salvage(connection, table, error)
    when, column = _best(table.clocks, newest)
    return TableFacts(rows=rows, newest=when, column=column)


def _describe(connection: sqlite3.Connection, name: str) -> _Table:
    columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
    indexes = connection.execute("SELECT name FROM pragma_index_list(?) WHERE NOT partial", (name,)).fetchall()
    taken = {column.lower() for column, _ in columns}
    alias = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken), None)
    key: tuple[str, ...] = (alias,) if alias is not None else ()
    try:
        if alias is not None:
            connection.execute(f"SELECT {alias} FROM {_quoted(name)} LIMIT 0")  # noqa: S608 - quoted
    except sqlite3.OperationalError:  # WITHOUT ROWID: stored by its primary key
        primary = sorted((position, column) for column, position in columns if position)
        key = tuple(_quoted(column) for _, column in primary)
    return _Table(
        name=_quoted(name),
        key=key,
        indexes=tuple(_quoted(index) for (index,) in indexes),
        clocks=tuple(clock for column, _ in columns if (clock := _clock(column)) is not None),
    )


def _clock(column: str) -> _Clock | None:
    words = [word for word in _BETWEEN_WORDS.split(_CAMEL.sub("_", column).lower()) if word]
    while len(words) > 1 and words[-1] in _UNITS:
        words.pop()
    if not words or not _PLANNED.isdisjoint(words):
        return None
    last = words[-1]
    instant = last in ("at", "ts") or "timestamp" in last
    day_or_hour = last == "on" or last.endswith(("date", "time"))
    rank = next((rank for rank, word in enumerate(_WRITES) if word in words), None)
    if rank is not None and (instant or day_or_hour or set(words) <= {*_WRITES, "last"}):
        return _Clock(column, 0, rank)
    if instant or (day_or_hour and last != "on"):
        return _Clock(column, 1 if instant else 2, 0)
    return None


def _best(clocks: Sequence[_Clock], newest: Sequence[int | None]) -> tuple[datetime | None, str | None]:
    """The newest instant in the columns of the best tier that shows any.

    Not only in the best column: a job that still runs has no finished_at, and was written all the same.
    """
    seen = [(clock, value) for clock, value in zip(clocks, newest, strict=True) if value is not None]
    if not seen:
        return None, None
    clock, value = min(seen, key=lambda pair: (pair[0].tier, -pair[1], pair[0].rank))
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value), clock.column


def _salvage(connection: sqlite3.Connection, table: _Table, error: Exception) -> TableFacts:
    rows, at_least = _count(connection, table)
    when, column = _best(table.clocks, _newest_from_both_ends(connection, table))
    return TableFacts(rows=rows, at_least=at_least, newest=when, column=column, problem=_says(error))


def _count(connection: sqlite3.Connection, table: _Table) -> tuple[int | None, bool]:
    """How many rows a damaged table has, and whether there may be more.

    The table's own tree, or any whole index, may be sound where the contents of its rows are not.
    """
    for how in ("NOT INDEXED", *(f"INDEXED BY {index}" for index in table.indexes)):
        for (rows,) in _until_error(connection, f"SELECT count(*) FROM {table.name} {how}"):  # noqa: S608 - quoted
            return rows, False
    rows = 0
    last: tuple[Any, ...] = ()
    for row in _until_error(connection, _walk(table, table.key or ["1"])):
        rows += 1
        last = row
    if table.key:
        # Never twice over the same row, whatever the damage made of the tree.
        beyond = f"WHERE ({', '.join(table.key)}) > ({', '.join('?' * len(last))})" if last else ""
        rows += sum(1 for _ in _until_error(connection, _walk(table, ["1"], beyond, "DESC"), last))
    return (rows, True) if rows else (None, False)


def _walk(table: _Table, what: Sequence[str], where: str = "", direction: str = "ASC") -> str:
    """A query that meets the rows as they are stored, so that every row before the damage is met."""
    order = f"ORDER BY {', '.join(f'{column} {direction}' for column in table.key)}" if table.key else ""
    return f"SELECT {', '.join(what)} FROM {table.name} NOT INDEXED {where} {order}"  # noqa: S608 - quoted


def _newest_from_both_ends(connection: sqlite3.Connection, table: _Table) -> list[int | None]:
    newest: list[int | None] = [None] * len(table.clocks)
    if not newest:
        return newest
    for direction in ("ASC", "DESC"):
        for row in _until_error(connection, _walk(table, table.instants, direction=direction)):
            for place, value in enumerate(row):
                if value is not None:
                    newest[place] = max(value, newest[place] or value)
    return newest
