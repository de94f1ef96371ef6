"""stages/tables.py: every row that can be counted is counted, and the set that is looked at stays what it was."""

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.model import TableFacts
from scpln_backup.stages import tables

PAGE = 4096
ROWS = 2000
FIRST = 1_790_000_000_000  # 2026-09-21 14:13:20 UTC in milliseconds; row n is n minutes later
EVERY = 60_000


def instant(row: int) -> datetime:
    return datetime.fromtimestamp((FIRST + row * EVERY) / 1000, tz=UTC)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def scratch(tmp_path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def look(scratch):
    """Read, and assert that nothing of the set changed and nothing stayed behind."""

    def look_at(path: Path) -> tuple[dict[str, TableFacts], str | None]:
        before = content(path.parent)
        found = tables.read(path, scratch)
        assert content(path.parent) == before
        assert not content(scratch)
        return found

    return look_at


def script(path: Path, statements: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(statements)
    return path


def fill(path: Path, *, index: bool = False, without_rowid: bool = False) -> Path:
    """`runs`: 20 rows a page, each with a marker of its own; `plans`: three rows on a page of their own."""
    key, kind = ("TEXT PRIMARY KEY", "WITHOUT ROWID") if without_rowid else ("TEXT", "")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE runs (marker {key}, padding TEXT, created_at INTEGER) {kind}")
        db.execute("CREATE TABLE plans (name TEXT)")
        if index:
            db.execute("CREATE INDEX by_time ON runs (created_at)")
        rows = ((f"<{n:06d}>", "x" * 170, FIRST + n * EVERY) for n in range(ROWS))
        db.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
        db.executemany("INSERT INTO plans VALUES (?)", [("a",), ("b",), ("c",)])
        db.commit()
    return path


def page_of(path: Path, marker: str) -> int:
    return path.read_bytes().index(marker.encode()) // PAGE


def root_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0] - 1


def overwrite(path: Path, page: int, data: bytes = b"\xff" * PAGE) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(data)


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    return folder / "scpln.db"


def test_the_applications_tables(sample_database, look):
    found, problem = look(sample_database)
    assert problem is None
    assert len(found) == 34
    at = datetime(2026, 11, 22, 10, 8, 5, tzinfo=UTC)
    assert found["runs"] == TableFacts(rows=3, newest=at.replace(microsecond=961000), column="updated_at")
    assert found["jobs"] == TableFacts(rows=2, newest=at.replace(microsecond=970000), column="finished_at")
    assert found["plan_artifacts"] == TableFacts(rows=28, newest=at.replace(microsecond=952000), column="created_at")
    assert found["plan_versions"].column == "created_at"  # not cutover_date, which is in the plan
    assert found["canonical_items"] == TableFacts(rows=2)
    assert found["plan_overrides"] == TableFacts(rows=0)


def test_what_only_the_wal_holds_is_seen(tmp_path, home, look):
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("CREATE TABLE t (x)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5)])
        for suffix in ("", "-wal", "-shm"):
            shutil.copyfile(f"{live}{suffix}", f"{home}{suffix}")
    assert look(home) == ({"t": TableFacts(rows=5)}, None)
    Path(f"{home}-wal").write_bytes(b"")
    assert look(home) == ({"t": TableFacts(rows=0)}, None)


KILLED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")
db.execute("BEGIN")
db.execute("DELETE FROM plans")
db.execute("UPDATE runs SET padding = 'y' || padding, created_at = created_at + 1000000")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_unfinished_is_undone(home, look):
    fill(home)
    subprocess.run([sys.executable, "-c", KILLED, home], check=False)
    assert Path(f"{home}-journal").stat().st_size > PAGE
    with closing(sqlite3.connect(f"file:{home}?immutable=1", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM runs WHERE padding LIKE 'y%'").fetchone()[0] > 0
    found, problem = look(home)
    assert problem is None
    assert found["plans"] == TableFacts(rows=3)
    assert found["runs"] == TableFacts(rows=ROWS, newest=instant(ROWS - 1), column="created_at")


def test_a_finished_journal_needs_no_copy(home):
    with closing(sqlite3.connect(home)) as db:
        db.execute("PRAGMA journal_mode = PERSIST")
        db.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    assert Path(f"{home}-journal").stat().st_size > 0
    assert tables.read(home, Path("/nowhere")) == ({"t": TableFacts(rows=1)}, None)


def test_a_database_that_ended_well_in_wal_mode_needs_no_copy(home):
    script(home, "PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
    assert tables.read(home, Path("/nowhere")) == ({"t": TableFacts(rows=0)}, None)
    assert list(content(home.parent)) == ["scpln.db"]


def test_without_a_scratch_folder_the_file_alone_is_read(home):
    script(home, "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    Path(f"{home}-wal").write_bytes(b"any")
    before = content(home.parent)
    found, problem = tables.read(home, Path("/nowhere"))
    assert found == {"t": TableFacts(rows=1)}
    assert problem.startswith("read without its -wal and -journal, as no copy could be made (/nowhere/")
    assert content(home.parent) == before


def test_a_stale_wal_of_rubbish_changes_nothing(home, look):
    script(home, "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    Path(f"{home}-wal").write_bytes(random.Random(1).randbytes(9000))
    assert look(home) == ({"t": TableFacts(rows=1)}, None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"no database" * 100, "SQLite says: file is not a database"),
        (random.Random(2).randbytes(2 * PAGE), "SQLite says: file is not a database"),
    ],
)
def test_what_is_no_database(home, look, data, problem):
    home.write_bytes(data)
    assert look(home) == ({}, problem)


def test_what_is_not_there(home, scratch):
    assert tables.read(home, scratch) == ({}, "there is no such file")
    home.mkdir()
    assert tables.read(home, scratch) == ({}, "it is not a regular file")
    home.rmdir()
    home.write_bytes(b"x")
    assert tables.read(home / "below", scratch) == ({}, f"{home}/below: Not a directory")


def test_strange_names_virtual_tables_and_sqlites_own(home, look):
    script(
        home,
        """
        CREATE TABLE "it's ""odd"", [x]" (id INTEGER PRIMARY KEY AUTOINCREMENT, "up""dated at" TEXT);
        INSERT INTO "it's ""odd"", [x]" VALUES (1, '2026-11-22 02:30:00');
        CREATE TABLE 日本 ("updatedAt" REAL);
        INSERT INTO 日本 VALUES (1790000000.5), (NULL);
        CREATE VIRTUAL TABLE search USING fts5(text);
        CREATE VIEW v AS SELECT 1;
        CREATE TABLE keys (rowid TEXT, _rowid_ TEXT, oid TEXT);
        """,
    )
    found, problem = look(home)
    assert problem is None
    shadows = {name for name in found if name.startswith("search_")}
    assert shadows
    assert set(found) - shadows == {'it\'s "odd", [x]', "日本", "keys"}
    assert found['it\'s "odd", [x]'].rows == 1
    assert found["日本"].newest == datetime.fromtimestamp(1790000000.5, tz=UTC)
    assert found["keys"] == TableFacts(rows=0)


@pytest.mark.parametrize(
    ("values", "newest"),
    [
        ([1790000000, 1780000000], "2026-09-21T14:13:20"),
        ([1790000000.25, None], "2026-09-21T14:13:20.25"),
        ([1790000000123], "2026-09-21T14:13:20.123"),
        ([1790000000123456], "2026-09-21T14:13:20.123456"),
        (["2026-11-22 02:30:00", "2026-11-22 02:29:59"], "2026-11-22T02:30:00"),
        (["2026-11-22T02:30:00.123456+09:00"], "2026-11-21T17:30:00.123"),
        (["2026-11-22T02:30Z"], "2026-11-22T02:30:00"),
        (["2026-11-22 02:30:00+09:00", "2026-11-21 17:30:01"], "2026-11-21T17:30:01"),
        (["2026-11-22 02:30:00", 1790000000123], "2026-11-22T02:30:00"),
        (["9999-12-31 23:59:59", "2199-01-01 00:00:00", "2026-11-22 02:30:00"], "2026-11-22T02:30:00"),
        ([float("inf"), 9e18, -1, 0, 5, 10**18, "now", "2460000.5", "12:00", "", b"2026-11-22 02:30:00"], None),
        (["2026-11-22", "2026-13-45 02:30:00", "2026-11-22 later"], None),
        ([None], None),
        ([], None),
    ],
)
def test_what_is_an_instant(home, look, values, newest):
    with closing(sqlite3.connect(home)) as db:
        db.execute("CREATE TABLE t (updated_at)")
        db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        db.commit()
    facts = look(home)[0]["t"]
    assert facts.rows == len(values)
    assert facts.newest == (datetime.fromisoformat(newest).replace(tzinfo=UTC) if newest else None)
    assert facts.column == ("updated_at" if newest else None)


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"created_at": 1, "updated_at": 1}, "updated_at"),
        ({"created_at": 2, "updated_at": 1}, "created_at"),
        ({"submitted_at": 3, "started_at": 2, "finished_at": 1}, "submitted_at"),
        ({"created_at": None, "seen_at": 5}, "seen_at"),
        ({"created_at": 1, "seen_at": 5}, "created_at"),
        ({"event_ts": 1}, "event_ts"),
        ({"eventTimestamp": 1}, "eventTimestamp"),
        ({"created_ms": 1}, "created_ms"),
        ({"LAST_MODIFIED": 1}, "LAST_MODIFIED"),
        ({"read_time": 1, "seen_at": 1}, "seen_at"),
        ({"read_time": 1}, "read_time"),
        ({"readdate": 1}, "readdate"),
        ({"expires_at": 1, "due_date": 1, "next_run_at": 1, "valid_until_ts": 1, "cutover_date": 1}, None),
        ({"status": 1, "amount": 1, "created_by": 1, "id": 1, "timezone": 1, "duration_ms": 1, "_": 1, "on": 1}, None),
    ],
)
def test_which_column_tells(home, look, columns, chosen):
    with closing(sqlite3.connect(home)) as db:
        quoted = [f'"{column}"' for column in columns]
        db.execute(f"CREATE TABLE t ({', '.join(quoted)})")
        values = [None if value is None else FIRST + value for value in columns.values()]
        db.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(columns))})", values)
        db.commit()
    assert look(home)[0]["t"].column == chosen


MALFORMED = "SQLite says: database disk image is malformed"


def test_a_damaged_table_is_counted_by_its_index(home, look):
    fill(home, index=True)
    overwrite(home, page_of(home, "<001000>"))
    found, problem = look(home)
    assert problem is None
    assert found["plans"] == TableFacts(rows=3)
    # Its newest row is behind the damage, met on the way back.
    assert found["runs"] == TableFacts(rows=ROWS, newest=instant(ROWS - 1), column="created_at")


@pytest.mark.parametrize("without_rowid", [False, True])
def test_a_damaged_table_is_counted_from_both_ends(home, look, without_rowid):
    fill(home, without_rowid=without_rowid)
    overwrite(home, page_of(home, "<000700>"))
    overwrite(home, page_of(home, "<001200>"))
    found, problem = look(home)
    assert problem is None
    runs = found["runs"]
    assert runs.at_least
    assert ROWS - 560 < runs.rows < ROWS - 500
    assert (runs.newest, runs.problem) == (instant(ROWS - 1), MALFORMED)
    assert found["plans"] == TableFacts(rows=3)


def test_a_newest_page_that_is_damaged(home, look):
    fill(home)
    overwrite(home, page_of(home, f"<{ROWS - 1:06d}>"), bytes(PAGE))
    runs = look(home)[0]["runs"]
    assert runs.at_least
    assert ROWS - 25 < runs.rows < ROWS
    assert runs.newest == instant(runs.rows - 1)


def test_a_table_without_a_root(home, look):
    fill(home)
    overwrite(home, root_of(home, "runs"))
    found, problem = look(home)
    assert problem is None
    assert found == {"runs": TableFacts(problem=MALFORMED), "plans": TableFacts(rows=3)}


def test_long_values_that_are_damaged_leave_the_count_exact(home, look):
    with closing(sqlite3.connect(home)) as db:
        db.execute("CREATE TABLE runs (results TEXT, created_at INTEGER)")
        rows = [(f"<{n:06d}>" + "x" * 3 * PAGE + f"<end {n:06d}>", FIRST + n * EVERY) for n in range(50)]
        db.executemany("INSERT INTO runs VALUES (?, ?)", rows)
        db.commit()
    first = page_of(home, "<000020>")
    # An overflow page begins with the number of the next one: the chain of row 20 now leads out of the file.
    overwrite(home, page_of(home, "<end 000020>") - 1, b"\xff\xff\xff\xff")
    assert page_of(home, "<000020>") == first
    runs = look(home)[0]["runs"]
    assert (runs.rows, runs.at_least, runs.problem) == (50, False, MALFORMED)
    assert runs.newest == instant(49)


def test_a_truncated_database(home, look):
    fill(home)
    with home.open("r+b") as file:
        file.truncate(page_of(home, "<001000>") * PAGE)
    found, problem = look(home)
    assert problem == MALFORMED
    assert found["runs"].at_least
    assert 900 < found["runs"].rows <= 1000
    assert found["runs"].newest == instant(found["runs"].rows - 1)


def test_a_schema_that_cannot_be_read(home, look):
    fill(home)
    overwrite(home, 0, home.read_bytes()[:100] + b"\xff" * (PAGE - 100))
    assert look(home) == ({}, MALFORMED)


def test_a_schema_that_can_be_read_in_part(home, look):
    fill(home)
    with closing(sqlite3.connect(home, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE runs (' WHERE name = 'runs'")
    found, problem = look(home)
    assert problem.startswith("SQLite says: malformed database schema (runs)")
    assert found["plans"] == TableFacts(rows=3)
    assert found["runs"].rows is None
    assert found["runs"].problem == "SQLite says: no such table: runs"


def test_a_schema_that_is_no_text(home, look):
    fill(home)
    home.write_bytes(home.read_bytes().replace(b"CREATE TABLE plans", b"CREATE T\xd3\xff\xfeE plans"))
    home.write_bytes(home.read_bytes().replace(b"tableplansplans", b"tablepl\xd3nsplans"))
    found, problem = look(home)
    assert problem == "its schema is no text any more"
    assert found["runs"].rows == ROWS


def test_a_damaged_set_with_a_wal_is_read_in_a_copy(home, look):
    fill(home)
    overwrite(home, page_of(home, "<001000>"))
    Path(f"{home}-wal").write_bytes(b"any")
    found, problem = look(home)
    assert problem is None
    assert found["runs"].at_least
    assert found["runs"].rows > ROWS - 30


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("filled") / "scpln.db", index=True)


@settings(max_examples=60)
@given(data=st.data())
def test_whatever_the_damage_no_row_is_made_up(filled, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    path = Path(shutil.copyfile(filled, folder / "scpln.db"))
    pages = path.stat().st_size // PAGE
    noise = random.Random(data.draw(st.integers(0, 2**32)))
    for page in data.draw(st.lists(st.integers(0, pages - 1), min_size=1, max_size=8)):
        start = data.draw(st.integers(0, PAGE - 1))
        with path.open("r+b") as file:
            file.seek(page * PAGE + start)
            file.write(data.draw(st.sampled_from([bytes(PAGE - start), noise.randbytes(PAGE - start)])))
    before = path.read_bytes()
    found, _ = tables.read(path, folder)
    assert path.read_bytes() == before
    assert list(content(folder)) == ["scpln.db"]
    for facts in found.values():
        if facts.at_least:
            assert 0 < facts.rows <= ROWS
            assert facts.problem is not None
    shutil.rmtree(folder)
