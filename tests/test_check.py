"""stages/check.py: damage is found whatever it is, and a sound database is described."""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scpln_backup.errors import BackupError, NotADatabaseError, SourceCorruptError, SourceTruncatedError
from scpln_backup.stages import check
from support import databases
from support.databases import names


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    return databases.grow(tmp_path_factory.mktemp("grown") / "scpln.db", 3)


@pytest.fixture
def path(tmp_path, grown) -> Path:
    return Path(shutil.copyfile(grown, tmp_path / "copy.db"))


def changed(path: Path, *statements: str) -> check.Content:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
    return check.examine(path)


def flip(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_sound_database_is_described(sample_database):
    with closing(sqlite3.connect(sample_database)) as db:
        version = db.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    content = check.examine(sample_database)
    assert (content.page_size, content.page_count) == (4096, 248)
    assert content.tables == {name: count for name, count in counts.items() if not name.startswith("sqlite_")}
    assert content.tables["runs"] == 3
    assert content.alembic_version == version
    assert names(sample_database.parent) == ["scpln.db"]
    fingerprint = content.fingerprint("ab" * 32, 1015808)
    assert fingerprint.rows == sum(content.tables.values())
    assert (fingerprint.sha256, fingerprint.size_bytes) == ("ab" * 32, 1015808)


def test_what_changes_the_fingerprint(path):
    before = check.examine(path)
    rows = changed(path, "DELETE FROM plan_kpis")
    assert rows.schema_sha256 == before.schema_sha256
    assert rows.tables == before.tables | {"plan_kpis": 0}
    schema = changed(path, "CREATE INDEX another ON runs (duration_ms)")
    assert schema.schema_sha256 != before.schema_sha256
    numbers = changed(path, "PRAGMA user_version = 7", "PRAGMA application_id = 9")
    assert (numbers.user_version, numbers.application_id) == (7, 9)
    assert numbers.schema_sha256 == schema.schema_sha256


def test_a_vacuum_changes_no_fingerprint_but_the_pages(path):
    before = changed(path, "DELETE FROM runs WHERE rowid % 2")
    after = changed(path, "VACUUM")
    assert after.page_count < before.page_count
    assert (after.schema_sha256, after.tables) == (before.schema_sha256, before.tables)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DROP TABLE alembic_version", None),
        ("DELETE FROM alembic_version", None),
        ("UPDATE alembic_version SET version_num = 'x1'", "x1"),
    ],
)
def test_alembic_version(path, statement, found):
    assert changed(path, statement).alembic_version == found


@pytest.mark.parametrize("name", ['say "hi"', "a b", "select", "sqlitey", "表"])
def test_names_of_tables(path, name):
    quoted = '"' + name.replace('"', '""') + '"'
    assert changed(path, f"CREATE TABLE {quoted} (x)", f"INSERT INTO {quoted} VALUES (1)").tables[name] == 1


def test_a_virtual_table_is_not_counted_and_what_holds_its_rows_is(path):
    content = changed(path, "CREATE VIRTUAL TABLE found USING fts5(text)", "INSERT INTO found VALUES ('x')")
    assert content.tables["found"] is None
    assert content.tables["found_content"] == 1


def test_an_unknown_virtual_table_and_a_broken_view_do_not_fail_the_check(path):
    content = changed(
        path,
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING no_such_module(x)')",
        "CREATE VIEW w AS SELECT * FROM gone",
    )
    assert content.tables["v"] is None
    assert "w" not in content.tables


@pytest.mark.parametrize("seed", range(5))
def test_a_page_of_noise_is_found(path, seed):
    """In the middle of the file lie only pages in use, and every one of them has a structure to break."""
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as db:
        interior = [row[0] for row in db.execute("SELECT pageno FROM dbstat WHERE pagetype != 'overflow'")]
    flip(path, (rng.choice(interior[1:]) - 1) * 4096, rng.randbytes(4096))
    with pytest.raises(SourceCorruptError, match=r"^damaged: ") as caught:
        check.examine(path)
    assert "\n" not in str(caught.value)


def test_a_broken_chain_of_overflow_pages_is_found(path):
    with closing(sqlite3.connect(path)) as db:
        page = db.execute("SELECT max(pageno) FROM dbstat WHERE pagetype = 'overflow'").fetchone()[0] - 3
    flip(path, (page - 1) * 4096, (page - 20).to_bytes(4, "big"))
    with pytest.raises(SourceCorruptError, match="integrity_check says"):
        check.examine(path)


def test_an_index_that_lacks_a_row_is_found(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        sql = "CREATE INDEX idx_runs_started_at ON runs (started_at)"
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'idx_runs_started_at'", (sql + " WHERE 0",))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM runs WHERE rowid = 1")  # the index, said to be empty, is not told
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'idx_runs_started_at'", (sql,))
    with pytest.raises(SourceCorruptError, match="wrong # of entries in index idx_runs_started_at"):
        check.examine(path)


def test_a_cut_off_copy(path):
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(SourceTruncatedError, match=r"^truncated: the header counts"):
        check.examine(path)


def test_a_copy_of_something_else(path):
    path.write_text("x" * 10000)
    with pytest.raises(NotADatabaseError):
        check.examine(path)


def test_a_copy_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises((BackupError, OSError)):
        check.examine(tmp_path / "copy.db")
    assert names(tmp_path) == []
