# ruff: noqa: RUF001 - Japanese punctuation is full-width
"""rules/loss.py: what is gone is said, what is not known is said too, and nothing else is claimed."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.model import Loss, TableFacts, TableLoss
from scpln_backup.rules import loss as rules

TOKYO = ZoneInfo("Asia/Tokyo")
TAKEN = datetime(2026, 11, 22, 2, 30, 7, tzinfo=TOKYO)
MORNING = datetime(2026, 11, 22, 9, 7, 30, tzinfo=TOKYO)
EVENING_BEFORE = datetime(2026, 11, 21, 18, 0, tzinfo=TOKYO)


def facts(rows: int | None, newest: datetime | None = None, **other: object) -> TableFacts:
    return TableFacts(rows=rows, newest=newest, column="updated_at" if newest else None, **other)


def said(before: dict, after: dict, problem: str | None = None, locale: str = "en") -> list[str]:
    return rules.words(rules.compare(before, after, TAKEN, problem), locale, TOKYO)


def test_rows_are_lost():
    before = {"runs": facts(123, MORNING), "plan_versions": facts(12, EVENING_BEFORE), "jobs": facts(4)}
    after = {"runs": facts(100, EVENING_BEFORE), "plan_versions": facts(10, EVENING_BEFORE), "jobs": facts(4)}
    loss = rules.compare(before, after, TAKEN)
    assert [table.name for table in loss.tables] == ["jobs", "plan_versions", "runs"]
    assert rules.lost_rows(loss) == {"plan_versions": 2, "runs": 23}
    assert rules.newest_lost(loss) == MORNING
    assert rules.words(loss, "en", TOKYO) == [
        "Everything written after 2026-11-22 02:30 is gone: 23 rows of runs, 2 of plan_versions.",
        "The last write that is gone, as far as can be seen, was at 2026-11-22 09:07 (runs.updated_at).",
    ]
    assert rules.words(loss, "ja", TOKYO) == [
        "2026-11-22 02:30 より後に書き込まれたデータは失われました：runs 23件、plan_versions 2件。",
        "失われた書き込みのうち、確認できた最も新しいものは 2026-11-22 09:07 です（runs.updated_at）。",
    ]


def test_rows_are_lost_and_others_changed():
    before = {"runs": facts(2, MORNING), "jobs": facts(4, TAKEN + timedelta(hours=8))}
    after = {"runs": facts(1), "jobs": facts(4, EVENING_BEFORE)}
    assert said(before, after) == [
        "Everything written after 2026-11-22 02:30 is gone: 1 row of runs.",
        "What was changed after 2026-11-22 02:30 in rows that are still there is gone too: jobs.",
        "The last write that is gone, as far as can be seen, was at 2026-11-22 10:30 (jobs.updated_at).",
    ]


def test_fewer_rows_without_a_later_time():
    before, after = {"items": facts(1234), "jobs": facts(4, EVENING_BEFORE)}, {"items": facts(4), "jobs": facts(4)}
    assert said(before, after) == [
        (
            "There are fewer rows than before: 1,230 rows of items. No time later than 2026-11-22 02:30 is seen in the "
            "old database, so when they were written cannot be told."
        ),
    ]
    assert said(before, after, locale="ja") == [
        (
            "復旧前より件数が減っています：items 1,230件。旧DBに 2026-11-22 02:30 より新しい日時は見つからず、"
            "いつ書き込まれた行かは分かりません。"
        ),
    ]


def test_rows_were_only_changed():
    assert said({"jobs": facts(4, MORNING)}, {"jobs": facts(4, EVENING_BEFORE)}) == [
        (
            "No table is seen to have fewer rows than before, but rows were changed or replaced after 2026-11-22 02:30, "
            "and that is gone: jobs."
        ),
        "The last write that is gone, as far as can be seen, was at 2026-11-22 09:07 (jobs.updated_at).",
    ]


def test_nothing_is_lost():
    both = {"jobs": facts(4, EVENING_BEFORE), "items": facts(7)}
    assert rules.lost_rows(rules.compare(both, both, TAKEN)) == {}
    (sentence,) = said(both, both)
    assert sentence.startswith("No loss is seen: ")
    (sentence,) = said(both, both, locale="ja")
    assert sentence.startswith("失われたデータは確認されませんでした。")


def test_what_the_restored_database_has_too_is_not_lost():
    """The name of an old artifact tells its minute only, and a clock may have been ahead."""
    both = {"jobs": facts(4, MORNING)}
    loss = rules.compare(both, both, TAKEN)
    assert rules.newest_lost(loss) is None
    assert rules.words(loss, "en", TOKYO)[0].startswith("No loss is seen: ")


def test_deleted_rows_are_back():
    before, after = {"runs": facts(9, MORNING), "jobs": facts(1)}, {"runs": facts(8), "jobs": facts(3)}
    assert "Rows that were deleted after the backup are there again: 2 rows of jobs." in said(before, after)
    assert "バックアップ後に削除した行が元に戻っています：jobs 2件。" in said(before, after, locale="ja")


def test_rows_that_could_not_be_counted_are_not_called_back():
    before = {"runs": facts(5, at_least=True, problem="bad"), "jobs": facts(None, problem="worse")}
    assert said(before, {"runs": facts(8), "jobs": facts(3)}) == [
        (
            "Everything written after 2026-11-22 02:30 is gone. What could be read shows no such write, but not "
            "everything could be read."
        ),
        "What is missing from jobs is unknown: the old table could not be read (worse).",
        "Only a part of the rows of runs could be counted (bad): more may be missing.",
    ]


def test_a_damaged_old_database():
    before = {
        "runs": facts(120, MORNING, at_least=True, problem="malformed"),
        "plans": facts(10, problem="malformed"),
        "jobs": facts(None, problem="no such table: jobs"),
    }
    after = {"runs": facts(100), "plans": facts(10), "jobs": facts(5), "items": facts(1)}
    english = said(before, after, "schema malformed")
    assert english == [
        "Everything written after 2026-11-22 02:30 is gone: at least 20 rows of runs.",
        "The last write that is gone, as far as can be seen, was at 2026-11-22 09:07 (runs.updated_at).",
        "The old database could be read only in part (schema malformed): more may be missing than is listed.",
        "What is missing from jobs is unknown: the old table could not be read (no such table: jobs).",
        "Only a part of the rows of runs could be counted (malformed): more may be missing.",
        "The rows of plans could be counted, but not all could be read (malformed).",
    ]
    japanese = said(before, after, "schema malformed", locale="ja")
    assert len(japanese) == len(english)
    assert japanese[0] == "2026-11-22 02:30 より後に書き込まれたデータは失われました：runs 20件以上。"


def test_an_old_database_that_could_not_be_read():
    loss = rules.compare({}, {"runs": facts(100)}, TAKEN, "there is no such file")
    assert rules.lost_rows(loss) == {}
    assert rules.newest_lost(loss) is None
    assert rules.words(loss, "en", TOKYO) == [
        (
            "Everything written after 2026-11-22 02:30 is gone. How much that is cannot be told, because the old database "
            "could not be read: there is no such file."
        ),
    ]
    (sentence,) = rules.words(loss, "ja", TOKYO)
    assert sentence.endswith("失われた件数は不明です（there is no such file）。")


def test_tables_of_one_side_only():
    before, after = {"runs": facts(1), "new": facts(3, MORNING)}, {"runs": facts(1), "old": facts(2)}
    assert rules.lost_rows(rules.compare(before, after, TAKEN)) == {"new": 3}
    english, japanese = said(before, after), said(before, after, locale="ja")
    assert english[0] == "Everything written after 2026-11-22 02:30 is gone: 3 rows of new."
    assert english[-2].startswith("Tables that the restored database does not have: new.")
    assert english[-1] == "Tables that the old database no longer had: old. They are back, as they were at the backup."
    assert japanese[-2].startswith("復旧後のDBにないテーブルがあります：new。")
    assert japanese[-1].endswith("元に戻っています：old。")


def test_a_restored_database_that_cannot_be_read():
    assert said({"runs": facts(1)}, {"runs": facts(None, problem="malformed")})[-1] == (
        "In the restored database runs could not be read in full (malformed): check it now."
    )


def test_many_tables_are_summed_up():
    before = {f"t{n:02d}": facts(20 - n, at_least=n == 12) for n in range(13)}
    english, japanese = (said(before, {}, locale=locale) for locale in ("en", "ja"))
    assert "20 rows of t00, 19 of t01" in english[0]
    assert "13 of t07, at least 50 of 5 more tables." in english[0]
    assert "t07 13件、ほか5テーブルで計50件以上。" in japanese[0]
    assert "t07 and 5 more." in english[-1]
    assert "t07、ほか5テーブル。" in japanese[-1]


@pytest.mark.parametrize(
    ("taken_at", "zone", "day"),
    [
        (datetime(2026, 11, 21, 17, 30, tzinfo=UTC), TOKYO, "2026-11-22"),
        (datetime(2026, 11, 21, 17, 30, tzinfo=UTC), UTC, "2026-11-21"),
        (datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO), ZoneInfo("America/New_York"), "2026-11-21"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), ZoneInfo("Europe/Berlin"), "2026-10-25"),
    ],
)
def test_since_is_the_snapshots_local_day(taken_at, zone, day):
    before, after = {"runs": facts(5, datetime(2026, 12, 24, tzinfo=UTC))}, {"runs": facts(1)}
    assert rules.since(rules.compare(before, after, taken_at), zone) == day


instants = st.datetimes(
    datetime(2026, 11, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    datetime(2026, 12, 1),  # noqa: DTZ001 - as above
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))]),
)
readings = st.builds(
    TableFacts,
    rows=st.none() | st.integers(0, 50),
    at_least=st.booleans(),
    newest=st.none() | instants,
    column=st.none() | st.just("updated_at"),
    problem=st.none() | st.just("{damaged}"),
)
sides = st.dictionaries(st.sampled_from(["runs", "jobs", "plans", "{0}", 'o"dd']), readings)


def is_read(table: TableLoss) -> bool:
    sides = [side for side in (table.before, table.after) if side is not None]
    return all(side.rows is not None and not side.at_least and side.problem is None for side in sides)


@given(before=sides, after=sides, taken_at=instants, problem=st.none() | st.just("{unreadable}"))
def test_nothing_is_kept_back_and_nothing_claimed(before, after, taken_at, problem):
    loss = rules.compare(before, after, taken_at, problem)
    assert [table.name for table in loss.tables] == sorted(set(before) | set(after))
    assert all((t.before, t.after) == (before.get(t.name), after.get(t.name)) for t in loss.tables)
    lost = rules.lost_rows(loss)
    for name, rows in lost.items():
        kept = after[name].rows if name in after else 0
        assert rows == before[name].rows - kept > 0
    newest = rules.newest_lost(loss)
    if newest is not None:
        assert newest > taken_at
        assert newest in [side.newest for side in before.values()]
    english, japanese = rules.words(loss, "en", TOKYO), rules.words(loss, "ja", TOKYO)
    assert len(english) == len(japanese) == len(set(english))
    assert all(sentence.endswith(".") for sentence in english)
    assert all(sentence.endswith("。") for sentence in japanese)
    for text in ("\n".join(english), "\n".join(japanese)):
        assert all(name in text for name in lost)
        assert "None" not in text
        assert problem is None or problem in text
    if english[0].startswith("No loss is seen"):
        assert not lost
        assert newest is None
        assert problem is None
        assert all(is_read(table) for table in loss.tables)


@given(side=sides, taken_at=instants)
def test_a_database_compared_with_itself_lost_nothing(side, taken_at):
    loss = rules.compare(side, side, taken_at)
    assert rules.lost_rows(loss) == {}
    assert rules.newest_lost(loss) is None


def test_a_loss_is_a_value():
    assert rules.compare({}, {"runs": facts(1)}, TAKEN) == Loss(
        taken_at=TAKEN, tables=(TableLoss(name="runs", before=None, after=facts(1)),)
    )
