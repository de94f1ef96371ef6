"""What an artifact is called, and what a name says."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression
from scpln_backup.rules.naming import artifact_name, compression_of, is_artifact, taken_at

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = datetime(2026, 11, 22, 2, 30, 7, tzinfo=TOKYO)


def test_name_is_the_procedures():
    assert artifact_name("scpln", NIGHT, Compression.GZIP, set()) == "scpln-20261122_0230.db.gz"
    assert artifact_name("scpln", NIGHT, Compression.ZSTD, set()) == "scpln-20261122_0230.db.zst"


def test_a_taken_name_gets_seconds_then_numbers():
    taken: set[str] = set()
    names = []
    for _ in range(4):
        names.append(artifact_name("scpln", NIGHT, Compression.GZIP, taken))
        taken.add(names[-1])
    assert names == [
        "scpln-20261122_0230.db.gz",
        "scpln-20261122_023007.db.gz",
        "scpln-20261122_023007-2.db.gz",
        "scpln-20261122_023007-3.db.gz",
    ]


@given(
    at=st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    count=st.integers(0, 4),
    compression=st.sampled_from(Compression),
    database=st.sampled_from(["scpln", "a-b", "we[ir]d*", "scpln-20261122_0230"]),
)
@settings(deadline=None, max_examples=100)
def test_every_name_is_an_artifact_and_tells_its_time(at, count, compression, database):
    at = at.replace(tzinfo=TOKYO)
    taken: set[str] = set()
    for _ in range(count):
        taken.add(artifact_name(database, at, compression, taken))
    name = artifact_name(database, at, compression, taken)
    assert name not in taken
    assert is_artifact(database, name)
    assert compression_of(name) is compression
    assert taken_at(database, name, TOKYO) == at.replace(second=at.second if count else 0, microsecond=0)


FILENAMES = st.one_of(
    st.text("scpln-*[].dbgzt0_", min_size=1, max_size=24),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["scpln", "s*pln", "[s]cpln", "Scpln", "", "."]),
            st.sampled_from(["-", "", "--"]),
            st.text("0123456789_-*", max_size=15),
            st.sampled_from([".db.gz", ".db.zst", ".db", ".db.gz.json", ".db.gz.sha256", "db.gz", ".DB.GZ", ".db.gz "]),
        ),
    ),
).filter(lambda name: name not in {".", ".."})


@given(names=st.lists(FILENAMES, min_size=1, max_size=40, unique=True))
@settings(deadline=None, max_examples=25)
def test_matches_what_find_matches(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).touch()
    found = subprocess.run(
        ["find", ".", "-type", "f", "(", "-name", "scpln-*.db.gz", "-o", "-name", "scpln-*.db.zst", ")", "-print0"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    assert {name for name in names if is_artifact("scpln", name)} == {path[2:] for path in found if path}


def test_a_database_named_like_a_glob_is_taken_literally():
    assert is_artifact("s*", "s*-20261122_0230.db.gz")
    assert not is_artifact("s*", "scpln-20261122_0230.db.gz")
    assert not is_artifact("[s]cpln", "scpln-20261122_0230.db.gz")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scpln-20261122_0230.db.gz", datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)),
        ("scpln-20261122_023007.db.zst", datetime(2026, 11, 22, 2, 30, 7, tzinfo=TOKYO)),
        ("scpln-20261122_023007-2.db.gz", datetime(2026, 11, 22, 2, 30, 7, tzinfo=TOKYO)),
        ("scpln-20261122_0230-12.db.gz", datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)),
        ("scpln-20260230_0230.db.gz", None),
        ("scpln-20261122_2430.db.gz", None),
        ("scpln-20261122_02300.db.gz", None),
        ("scpln-20261122_0230-.db.gz", None),
        ("scpln-20261122_0230\n.db.gz", None),
        ("scpln-00000000_0000.db.gz", None),
        ("scpln-00010101_0000.db.gz", None),
        ("scpln-２０２６1122_0230.db.gz", None),  # noqa: RUF001 - full-width digits are the point
        ("scpln-.db.gz", None),
        ("scpln-before-migration.db.gz", None),
        ("scpln-staging-20261122_0230.db.gz", None),
        ("other-20261122_0230.db.gz", None),
        ("scpln-20261122_0230.db.gz.json", None),
    ],
)
def test_time_from_the_name(name, expected):
    assert taken_at("scpln", name, TOKYO) == expected


def test_times_the_zone_repeats_or_skips():
    repeated = taken_at("scpln", "scpln-20261025_0230.db.gz", BERLIN)
    assert repeated is not None
    assert repeated.astimezone(UTC) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    skipped = taken_at("scpln", "scpln-20260329_0230.db.gz", BERLIN)
    assert skipped is not None
    assert skipped.isoformat() == "2026-03-29T03:30:00+02:00"


def test_compression_of_another_file():
    with pytest.raises(ArtifactError, match=r"notes\.txt: not the name of an artifact"):
        compression_of("notes.txt")
