"""When a good copy is suspect because the database shrank."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.model import Compression, Fingerprint, Manifest, State
from scpln_backup.rules.suspect import suspicion

START = datetime(2026, 11, 1, 2, 30, tzinfo=UTC)


def fingerprint(rows, size=1_000_000):
    return Fingerprint(
        sha256="0" * 64,
        size_bytes=size,
        page_size=4096,
        page_count=size // 4096,
        schema_sha256="0" * 64,
        user_version=0,
        application_id=0,
        tables={"runs": rows, "search": None},
    )


def manifest(day, rows, size=1_000_000, state=State.VERIFIED, *, accepted=False):
    taken = START + timedelta(days=day)
    return Manifest(
        name=f"scpln-{taken:%Y%m%d_%H%M}.db.gz",
        database="scpln",
        environment="test",
        taken_at=taken,
        compression=Compression.GZIP,
        bytes=1,
        sha256="0" * 64,
        fingerprint=fingerprint(rows, size),
        state=state,
        accepted_at=taken + timedelta(hours=6) if accepted else None,
    )


def test_reason_names_both_sides():
    recent = [manifest(day, 1240) for day in range(9)]
    assert suspicion(fingerprint(610), recent, 30) == (
        "rows fell from 1,240 (median of the last 7) to 610, by 51 %: more than 30 %"
    )


def test_size_alone_is_enough_and_both_are_said():
    recent = [manifest(0, 100, size=2_000_000)]
    assert suspicion(fingerprint(100, size=1_000_000), recent, 30) == (
        "bytes fell from 2,000,000 (the last one) to 1,000,000, by 50 %: more than 30 %"
    )
    both = suspicion(fingerprint(10, size=1_000_000), recent, 30)
    assert both is not None
    assert both.startswith("rows fell")
    assert "; bytes fell" in both
    assert "\n" not in both


@pytest.mark.parametrize(
    ("rows", "suspect"), [(700, False), (699, True), (701, False), (1000, False), (5000, False), (0, True)]
)
def test_only_more_than_the_share(rows, suspect):
    assert bool(suspicion(fingerprint(rows), [manifest(0, 1000)], 30)) is suspect


def test_a_hair_over_the_share_does_not_read_as_the_share():
    reason = suspicion(fingerprint(699_999), [manifest(0, 1_000_000)], 30)
    assert reason == "rows fell from 1,000,000 (the last one) to 699,999, by just over 30 %"


def test_even_medians_are_exact():
    """The median of two odd sums lies on a half: 1000.5, of which 70 % are 700.35."""
    recent = [manifest(0, 1000), manifest(1, 1001)]
    assert suspicion(fingerprint(700), recent, 30) is not None
    assert suspicion(fingerprint(701), recent, 30) is None


def test_nothing_to_compare_with():
    assert suspicion(fingerprint(0), [], 30) is None
    bad = [manifest(day, 1000, state=state) for day, state in enumerate(State) if state is not State.VERIFIED]
    assert suspicion(fingerprint(0), bad, 30) is None


def test_a_median_of_nothing_is_no_measure():
    assert suspicion(fingerprint(0), [manifest(0, 0)], 30) is None


def test_only_the_newest_seven_verified_count():
    grown = [manifest(day, 1000) for day in range(7)]
    older = [manifest(-day, 100) for day in range(1, 30)]
    lost = [manifest(10 + day, 100, state=State.SUSPECT) for day in range(9)]
    assert suspicion(fingerprint(600), [*older, *grown, *lost], 30) is not None


def test_an_accepted_shrink_is_the_new_measure():
    before = [manifest(day, 1000) for day in range(7)]
    accepted = manifest(8, 100, accepted=True)
    assert suspicion(fingerprint(100), before, 30) is not None
    assert suspicion(fingerprint(100), [*before, accepted], 30) is None
    assert suspicion(fingerprint(50), [*before, accepted], 30) is not None
    # Accepted and not yet proven again: the old ones no longer count, and there is nothing else.
    suspect = manifest(8, 100, state=State.SUSPECT, accepted=True)
    assert suspicion(fingerprint(1), [*before, suspect], 30) is None
    # The newest of several accepted ones counts.
    again = manifest(9, 10, accepted=True)
    assert suspicion(fingerprint(10), [*before, accepted, again], 30) is None


@given(
    rows=st.lists(st.integers(0, 10**12), min_size=1, max_size=7),
    now=st.integers(0, 10**12),
    percent=st.integers(1, 99),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=150)
def test_agrees_with_the_definition_in_any_order(rows, now, percent, order):
    recent = [manifest(day, count) for day, count in enumerate(rows)]
    order.shuffle(recent)
    ranked = sorted(rows)
    twice_median = ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]
    shrank = twice_median > 0 and now * 200 < twice_median * (100 - percent)
    assert (suspicion(fingerprint(now), recent, percent) is not None) == shrank
