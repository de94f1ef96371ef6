"""The draft of an incident's report: what it says in both languages, and that it is Markdown whatever it says."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scpln_backup.model import (
    Incident,
    Loss,
    Outcome,
    RebuildRecord,
    RestoreOutcome,
    RestoreRecord,
    Step,
    TableFacts,
    TableLoss,
)
from scpln_backup.rules import report
from scpln_backup.rules.loss import words
from scpln_backup.rules.report import Part

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
BEGAN = datetime(2026, 11, 22, 10, 0, tzinfo=TOKYO)
TAKEN = datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ASIDE = "/opt/scpln/data/scpln.db.bak-20261122_1000"


def step(name: str, second: float, seconds: float = 1.0, detail: str | None = None) -> Step:
    return Step(name=name, at=BEGAN + timedelta(seconds=second), seconds=seconds, detail=detail)


LOSS = Loss(
    taken_at=TAKEN,
    tables=(
        TableLoss(name="plans", before=TableFacts(rows=5), after=TableFacts(rows=5)),
        TableLoss(
            name="runs",
            before=TableFacts(rows=1_523, newest=BEGAN - HOUR, column="updated_at"),
            after=TableFacts(rows=1_500, newest=TAKEN - HOUR, column="updated_at"),
        ),
        TableLoss(
            name="jobs", before=TableFacts(rows=40, at_least=True, problem="page 7 is unreadable"), after=TableFacts()
        ),
    ),
)
RESTORE = RestoreRecord(
    id=7,
    started_at=BEGAN,
    finished_at=BEGAN + timedelta(seconds=260),
    artifact="scpln-20261122_0230.db.gz",
    artifact_sha256=SHA,
    taken_at=TAKEN,
    target="/opt/scpln/data/scpln.db",
    outcome=RestoreOutcome.SUCCESS,
    replaced=True,
    set_aside=ASIDE,
    loss=LOSS,
    steps=(
        step("decompress and check", 1, 120),
        step("stop scpln-api.service", 130, 3),
        step(f"set the old database aside in {ASIDE}", 133),
        step("put the restored database in its place", 134),
        step("check it in its place", 135, 100),
        step("start scpln-api.service", 240, 2),
        step("health probe", 242, 10),
    ),
    user="alice (as root)",
)
INCIDENT = Incident(id=3, opened_at=BEGAN + 5 * MINUTE, deadline_at=BEGAN + 24 * HOUR, restore=RESTORE)
REBUILDS = (
    RebuildRecord(
        started_at=BEGAN + HOUR,
        since="2026-11-22",
        finished_at=BEGAN + HOUR + 90 * MINUTE,
        outcome=Outcome.FAILED,
        exit_code=3,
        output="/var/lib/scpln-backup/rebuilds/1.log",
        error="exit code 3",
    ),
    RebuildRecord(started_at=BEGAN + 3 * HOUR, since="2026-11-21", error="interrupted"),
)
DONE = replace(
    INCIDENT,
    closed_at=BEGAN + 6 * HOUR,
    rebuilds=REBUILDS,
    scope="Two planners lost the morning's runs.",
    prevention="電源の二重化（11月末まで）",  # noqa: RUF001 - Japanese punctuation
)


def draft(incident: Incident = INCIDENT, locale: str = "en", zone: ZoneInfo = TOKYO, now: datetime = BEGAN) -> str:
    return report.draft(incident, database="scpln", environment="production", locale=locale, zone=zone, now=now)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ .*$", text, re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What is under a heading, down to the next one of its kind or a higher one."""
    level = heading.split(maxsplit=1)[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, headings(text)
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def cells(text: str, name: str) -> list[str]:
    """The cells of the table row that begins with `name`."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


class TestEnglish:
    def test_it_has_the_three_parts_of_the_procedure(self):
        assert headings(draft()) == [
            "# Incident report 3: restore of scpln (production)",
            "## Recovery time",
            "## Scope",
            "### Data lost",
            "### Rebuild",
            "## Prevention",
            "## Timeline",
        ]

    def test_the_facts(self):
        text = draft()
        assert cells(text, "Database")[1] == "scpln (production) `/opt/scpln/data/scpln.db`"
        assert cells(text, "Restored from")[1] == "`scpln-20261122_0230.db.gz` (taken 2026-11-22 02:30:00 JST)"
        assert cells(text, "SHA-256")[1] == f"`{SHA}`"
        assert cells(text, "Restored by")[1] == "alice (as root)"
        assert cells(text, "Old database kept in")[1] == f"`{ASIDE}`"

    def test_recovery_time(self):
        found = section(draft(), "## Recovery time")
        assert "Service running again: 2026-11-22 10:04:12 JST (4 min 12 s after the restore began)" in found
        assert "Service was stopped for: 2 min 2 s" in found
        assert "Incident closed: not yet" in found
        assert "2026-11-23 10:00:00 JST (not closed yet)" in found
        closed = section(draft(DONE), "## Recovery time")
        assert "Incident closed: 2026-11-22 16:00:00 JST (6 h after the restore began)" in closed
        assert "(met, 18 h before it)" in closed

    def test_the_loss(self):
        found = section(draft(), "### Data lost")
        for sentence in words(LOSS, "en", TOKYO):
            assert f"- {sentence}" in found
        assert cells(found, "`runs`") == [
            "`runs`",
            "1,523",
            "1,500",
            "23",
            "2026-11-22 09:00:00 JST",
            "2026-11-22 01:30:00 JST",
        ]
        assert cells(found, "`jobs`")[1:4] == ["≥ 40", "unknown", "unknown"]
        assert "`plans`" not in found
        assert "Tables that have the rows and the newest time they had: 1." in found

    def test_rebuilds(self):
        assert "`scpln-backup rebuild --since 2026-11-22`" in section(draft(), "### Rebuild")
        found = section(draft(DONE), "### Rebuild")
        failed = ["2026-11-22", "failed", "3", "1 h 30 min", "`/var/lib/scpln-backup/rebuilds/1.log`"]
        assert cells(found, "2026-11-22 11:00:00 JST")[1:] == failed
        assert cells(found, "2026-11-22 13:00:00 JST")[1:] == ["2026-11-21", "not ended", "-", "-", "-"]

    def test_the_timeline_is_in_order(self):
        rows = [line for line in section(draft(DONE), "## Timeline").splitlines() if line.startswith("| 2026")]
        assert [row.split("|")[1] for row in rows] == sorted(row.split("|")[1] for row in rows)
        events = [row.split("|")[2].strip() for row in rows]
        assert events[:3] == ["Restore started", "decompress and check", "stop scpln-api.service"]
        assert events[-5:] == [
            "Incident opened",
            "Rebuild started",
            "Rebuild ended: failed",
            "Rebuild started",
            "Incident closed",
        ]

    def test_what_people_wrote_takes_the_place_of_what_asks_for_it(self):
        text = draft()
        assert "**[TO BE WRITTEN]** Who and what" in section(text, "## Scope")
        assert "`scpln-backup incident note 3 --scope TEXT`" in section(text, "## Scope")
        assert "`scpln-backup incident note 3 --prevention TEXT`" in section(text, "## Prevention")
        done = draft(DONE)
        assert "TO BE WRITTEN" not in done
        assert DONE.scope in section(done, "## Scope")
        assert DONE.prevention in section(done, "## Prevention")


class TestJapanese:
    def test_it_has_the_three_parts_of_the_procedure(self):
        assert headings(draft(locale="ja")) == [
            "# 障害報告 #3：scpln（production）のリストア",  # noqa: RUF001 - Japanese punctuation
            "## 復旧時間",
            "## 影響範囲",
            "### データの欠損",
            "### データの再構築",
            "## 再発防止",
            "## 経過",
        ]

    def test_what_it_says(self):
        text = draft(DONE, "ja")
        assert cells(text, "実施者")[1] == "alice (as root)"
        assert cells(text, "SHA-256")[1] == f"`{SHA}`"
        assert cells(text, "旧データベースの退避先")[1] == f"`{ASIDE}`"
        recovery = section(text, "## 復旧時間")
        assert "サービス再開：2026-11-22 10:04:12 JST（リストア開始から 4分12秒）" in recovery  # noqa: RUF001 - Japanese
        assert "サービス停止時間：2分2秒" in recovery  # noqa: RUF001 - Japanese
        assert "期限内に完了、残り 18時間" in recovery
        loss = section(text, "### データの欠損")
        for sentence in words(LOSS, "ja", TOKYO):
            assert f"- {sentence}" in loss
        assert cells(loss, "`runs`")[1:4] == ["1,523", "1,500", "23"]
        assert cells(section(text, "### データの再構築"), "2026-11-22 11:00:00 JST")[2:5] == ["失敗", "3", "1時間30分"]
        assert "| サービス停止（scpln-api.service） |" in text  # noqa: RUF001 - Japanese punctuation
        assert "【要記入】" not in text

    def test_what_people_must_write_is_asked_for(self):
        text = draft(locale="ja")
        assert "**【要記入】** 影響を受けた利用者・業務・期間" in section(text, "## 影響範囲")
        assert "**【要記入】** 原因と" in section(text, "## 再発防止")

    def test_no_english_is_left_in_it(self):
        """But names, paths, commands and what people or programs said."""
        text = re.sub(r"`[^`]*`", "", draft(DONE, "ja")).replace(str(DONE.scope), "")
        left = set(re.findall(r"[A-Za-z][a-z]+", text))
        assert left <= {"scpln", "backup", "alice", "as", "root", "production", "api", "service", "since", "opt", "data"} | {
            "db", "bak", "runs", "jobs", "page", "is", "unreadable", "updated", "at"
        }  # fmt: skip


@pytest.mark.parametrize("locale", ["en", "ja"])
class TestBoth:
    def test_the_deadline(self, locale):
        missed = replace(DONE, closed_at=BEGAN + 25 * HOUR)
        assert {"en": "(missed by 1 h)", "ja": "期限を 1時間 超過"}[locale] in draft(missed, locale)
        passed = draft(INCIDENT, locale, now=BEGAN + 25 * HOUR)
        assert {"en": "(passed, and not closed yet)", "ja": "期限超過、未クローズ"}[locale] in passed

    def test_hours_are_those_that_pass(self, locale):
        """In Berlin the clocks went back at 3:00 that day."""
        began = datetime(2026, 10, 25, 1, 30, tzinfo=BERLIN)
        restore = replace(RESTORE, started_at=began, steps=(), finished_at=datetime(2026, 10, 25, 3, 30, tzinfo=BERLIN))
        incident = replace(INCIDENT, restore=restore, opened_at=began)
        expected = {"en": "3 h after the restore", "ja": "リストア開始から 3時間"}[locale]
        assert expected in draft(incident, locale, BERLIN)

    def test_a_restore_that_failed(self, locale):
        restore = replace(
            RESTORE, outcome=RestoreOutcome.ROLLED_BACK, loss=None, set_aside=None, error="the health probe got 500"
        )
        text = draft(replace(INCIDENT, restore=restore), locale)
        assert "`the health probe got 500`" in text
        assert {"en": "Service running again: unknown", "ja": "サービス再開：不明"}[locale] in text  # noqa: RUF001 - Japanese
        assert {"en": "was not measured", "ja": "測定されていません"}[locale] in text

    def test_an_old_database_that_could_not_be_read(self, locale):
        tables = tuple(replace(table, before=None) for table in LOSS.tables)
        loss = replace(LOSS, tables=tables, problem="file is not a database")
        text = draft(replace(INCIDENT, restore=replace(RESTORE, loss=loss)), locale)
        assert "file is not a database" in text
        assert "`runs`" not in text
        assert "rebuild --since 2026-11-22" in text

    def test_it_is_the_same_every_time(self, locale):
        assert draft(DONE, locale) == draft(DONE, locale)
        assert draft(DONE, locale, now=BEGAN + 99 * HOUR) == draft(DONE, locale)
        assert draft(locale=locale).endswith("|\n")
        assert "\n\n\n" not in draft(DONE, locale)


def test_missing():
    assert report.missing(INCIDENT) == (Part.SCOPE, Part.PREVENTION)
    assert report.missing(replace(INCIDENT, scope=" \n")) == (Part.SCOPE, Part.PREVENTION)
    assert report.missing(replace(INCIDENT, scope="x")) == (Part.PREVENTION,)
    assert report.missing(DONE) == ()


def test_a_service_that_was_not_stopped_was_up_when_the_restore_ended():
    restore = replace(RESTORE, steps=RESTORE.steps[:1])
    assert report.service_up_at(restore) == RESTORE.finished_at
    assert report.downtime_seconds(restore) is None


NASTY = st.text(st.sampled_from("ab|`\\\n*#_<あ "), max_size=12)
TIMES = st.datetimes(datetime(1971, 1, 2), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, BERLIN]))  # noqa: DTZ001 - the bounds of aware ones


@settings(max_examples=60)
@given(
    name=NASTY,
    detail=st.none() | NASTY,
    times=st.lists(TIMES, min_size=6, max_size=6),
    locale=st.sampled_from(["en", "ja"]),
    seconds=st.floats(0, 1e9),
)
def test_its_tables_stay_tables_whatever_is_in_them(name, detail, times, locale, seconds):
    tables = (TableLoss(name=name, before=TableFacts(rows=2, newest=times[5]), after=None),)
    restore = RestoreRecord(
        started_at=times[0],
        finished_at=times[1],
        artifact=name,
        target=name,
        user=detail,
        error=detail,
        loss=Loss(taken_at=times[2], tables=tables),
        steps=(Step(name=name, at=times[3], seconds=seconds, detail=detail),),
    )
    rebuild = RebuildRecord(started_at=times[3], finished_at=times[4], since=name, output=detail)
    incident = Incident(opened_at=times[4], deadline_at=times[5], restore=restore, rebuilds=(rebuild,))
    text = draft(incident, locale, BERLIN)
    widths = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in text.splitlines() if line.startswith("|")]
    assert widths == [2] * (8 + (1 if detail else 0)) + [6] * 3 + [6] * 3 + [4] * (2 + 6)
    assert len(headings(text)) == 7
