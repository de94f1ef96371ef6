"""The index of artifacts, read for the page."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from scpln_backup.errors import CatalogError
from scpln_backup.model import State
from scpln_backup.records.artifacts import ArtifactIndex
from scpln_backup.records.catalog import Catalog
from support.page_views import NOW, TOKYO, artifact


@pytest.fixture
def catalog(tmp_path):
    return Catalog.open(tmp_path / "catalog.db", TOKYO, NOW)


def index_of(catalog, zone=TOKYO):
    return ArtifactIndex(catalog.path, zone)


def test_the_newest_first_and_no_more_than_asked_for(catalog):
    stored = [
        artifact(back, pinned=back == 1, state=State.SUSPECT if back == 0 else State.VERIFIED) for back in range(9)
    ]
    catalog.sync_artifacts(reversed(stored), NOW)
    assert index_of(catalog).newest(4) == stored[:4]
    assert index_of(catalog).newest(100) == stored


def test_two_of_one_instant_stand_in_the_order_of_their_names(catalog):
    at = artifact(0).taken_at
    stored = [artifact(0, name=f"scpln-{name}.db.gz", taken_at=at) for name in "cab"]
    catalog.sync_artifacts(stored, NOW)
    assert [found.name for found in index_of(catalog).newest(9)] == [f"scpln-{name}.db.gz" for name in "cba"]


def test_what_is_gone_is_not_shown(catalog):
    stored = [artifact(back) for back in range(3)]
    catalog.sync_artifacts(stored, NOW)
    catalog.note_deleted(stored[1].name, "past its time", NOW)
    catalog.sync_artifacts(stored[:1], NOW + timedelta(minutes=1))
    assert index_of(catalog).newest(9) == stored[:1]


def test_times_come_in_the_zone_of_the_reader(catalog):
    catalog.sync_artifacts([artifact(0)], NOW)
    (found,) = index_of(catalog, ZoneInfo("Europe/Berlin")).newest(1)
    assert found.taken_at.isoformat() == "2026-11-21T18:30:01+01:00"


def test_an_unsized_artifact_of_the_old_procedure(catalog):
    old = artifact(0, raw_bytes=None, state=State.UNVERIFIED)
    catalog.sync_artifacts([old], NOW)
    assert index_of(catalog).newest(1) == [old]


def test_no_catalog_has_no_artifacts(tmp_path):
    assert ArtifactIndex(tmp_path / "none.db", TOKYO).newest(9) == []


def test_a_damaged_catalog_is_a_named_error(catalog):
    catalog.path.write_bytes(b"SQLite format 3\0" + b"x" * 8192)
    with pytest.raises(CatalogError, match=r"catalog\.db"):
        index_of(catalog).newest(1)
