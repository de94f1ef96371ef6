"""The monthly review: what it says of a month, and that it is made once, from the catalog and the audit log."""

# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scpln_backup import events
from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.errors import BackupError
from scpln_backup.events import Announcer
from scpln_backup.model import (
    DrillRecord,
    Incident,
    Outcome,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    Trigger,
)
from scpln_backup.observers.audit import AuditTrail
from scpln_backup.operations import review as operation
from scpln_backup.records.catalog import Catalog
from scpln_backup.rules.review import (
    Act,
    ChainState,
    Deed,
    Deletion,
    Disagreement,
    Facts,
    Notable,
    Restore,
    Review,
    Run,
    Told,
    Trouble,
    bounds,
    month_before,
    review,
)
from scpln_backup.rules.review_markdown import markdown
from scpln_backup.rules.review_texts import ENGLISH, JAPANESE, TEXTS
from scpln_backup.support.text import human_bytes, human_duration
from support.place import Place

if TYPE_CHECKING:
    from pathlib import Path

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
BEGIN, END = bounds("2026-10", TOKYO)
MADE = datetime(2026, 11, 1, 9, 0, tzinfo=TOKYO)
GIB = 1 << 30


def at(day: int, hour: int = 2, minute: int = 30, month: int = 10) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=TOKYO)


def run(start: datetime, outcome: Outcome = Outcome.SUCCESS, **more: Any) -> RunRecord:
    good = outcome is not Outcome.FAILED
    facts: dict[str, Any] = {
        "trigger": Trigger.SCHEDULE,
        "finished_at": start + timedelta(seconds=12),
        "artifact": f"scpln-{start:%Y%m%d_%H%M}.db.gz" if good else None,
        "raw_bytes": GIB if good else None,
        "artifact_bytes": GIB // 8 if good else None,
        "duration_seconds": 12.0,
        "writer_blocked_seconds": 0.1,
        "error": None if outcome is Outcome.SUCCESS else f"{outcome} because",
    }
    return RunRecord(started_at=start, outcome=outcome, **(facts | more))


def nightly(first: datetime, count: int, **more: Any) -> list[RunRecord]:
    return [run(first + timedelta(days=day), **more) for day in range(count)]


def facts(**more: Any) -> Facts:
    known: dict[str, Any] = {
        "month": "2026-10",
        "begin": BEGIN,
        "end": END,
        "now": MADE,
        "zone_name": "Asia/Tokyo",
        "database": "scpln",
        "environment": "production",
        "host": "db1",
        "overdue_hours": 24,
        "installed_at": at(1, month=6),
        "slots": tuple(at(1) + timedelta(days=day) for day in range(32)),
        "drills": (DrillRecord(trigger=Trigger.SCHEDULE, started_at=at(4, 4), outcome=Outcome.SUCCESS),),
        "chain": ChainState(
            ok=True, checked=40, first_seq=1, last_seq=40, first_at=at(1, month=6), last_hash="ab" * 32
        ),
    }
    return Facts(**(known | more))


def good_month(**more: Any) -> Facts:
    records = nightly(at(1, month=9), 30, raw_bytes=GIB // 2) + nightly(at(1), 32)
    return facts(**({"runs": tuple(Run(record) for record in records)} | more))


def written(found: Facts | Review, locale: str = "en") -> str:
    judged = review(found) if isinstance(found, Facts) else found
    return markdown(judged, locale=locale, zone=TOKYO, size=human_bytes, duration=human_duration)


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n\n")[1].split("\n## ", maxsplit=1)[0]


def table_of(text: str) -> list[list[str]]:
    """The cells of the first table in a text."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows if "---" not in row]


class TestMonths:
    def test_bounds_are_local(self) -> None:
        assert bounds("2026-10", BERLIN) == (
            datetime(2026, 9, 30, 22, tzinfo=UTC),
            datetime(2026, 10, 31, 23, tzinfo=UTC),
        )
        assert bounds("2026-12", TOKYO)[1] == datetime(2027, 1, 1, tzinfo=TOKYO)

    @pytest.mark.parametrize("wrong", ["2026", "2026-13", "2026-1", "october", "0000-01", "9999-12", "2026-10x"])
    def test_anything_else_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValueError, match=r"month|year"):
            bounds(wrong, TOKYO)

    def test_the_month_before(self) -> None:
        assert (month_before("2026-11"), month_before("2026-01")) == ("2026-10", "2025-12")


class TestAGoodMonth:
    def test_nothing_is_to_be_followed_up(self) -> None:
        text = written(good_month())
        assert section(text, "To follow up") == "Nothing.\n"
        assert text.startswith("# Review of 2026-10: scpln (production)\n")

    def test_in_japanese(self) -> None:
        text = written(good_month(), "ja")
        assert text.startswith("# 月次レビュー 2026年10月：scpln（production）\n")
        assert section(text, "要対応事項") == "ありません。\n"

    def test_runs_are_counted_by_trigger_and_outcome(self) -> None:
        records = [Run(record) for record in nightly(at(1, month=9), 30) + nightly(at(1), 30)]
        records += [
            Run(run(at(31), trigger=Trigger.CATCH_UP)),
            Run(run(at(31, 9), Outcome.SUSPECT, trigger=Trigger.CLI)),
        ]
        assert table_of(section(written(facts(runs=tuple(records))), "Runs"))[:6] == [
            ["Asked for by", "success", "degraded", "suspect", "failed", "Total"],
            ["schedule", "30", "0", "0", "0", "30"],
            ["command line", "0", "0", "1", "0", "1"],
            ["catch-up", "1", "0", "0", "0", "1"],
            ["Total", "31", "0", "1", "0", "32"],
            ["Month before", "30", "0", "0", "0", "30"],
        ]

    def test_durations_and_sizes_against_the_month_before(self) -> None:
        before = nightly(at(1, month=9), 30, duration_seconds=10.0, raw_bytes=GIB, artifact_bytes=100 << 20)
        now = nightly(at(1), 30, duration_seconds=12.0, raw_bytes=GIB, artifact_bytes=100 << 20)
        now.append(run(at(31), duration_seconds=30.0, raw_bytes=2 * GIB, artifact_bytes=50 << 20))
        drills = (
            DrillRecord(
                trigger=Trigger.SCHEDULE, started_at=at(6, month=9), outcome=Outcome.SUCCESS, restore_seconds=20
            ),
            DrillRecord(trigger=Trigger.SCHEDULE, started_at=at(4), outcome=Outcome.SUCCESS, restore_seconds=15.0),
        )
        text = written(facts(runs=tuple(Run(record) for record in before + now), drills=drills))
        assert table_of(section(text, "Durations and sizes"))[1:] == [
            ["Duration, median", "12 s", "10 s", "+20.0 %"],
            ["Duration, longest", "30 s", "10 s", "+200.0 %"],
            ["Writers waited, at most", "0.1 s", "0.1 s", "±0 %"],
            ["Database, median", "1.0 GiB", "1.0 GiB", "±0 %"],
            ["Database, last", "2.0 GiB", "1.0 GiB", "+100.0 %"],
            ["Artifact, median", "100 MiB", "100 MiB", "±0 %"],
            ["Restore in drills, longest", "15 s", "20 s", "\N{MINUS SIGN}25.0 %"],
        ]

    def test_the_end_of_the_log_is_kept_in_it(self) -> None:
        assert f"40: `{'ab' * 32}`" in section(written(good_month()), "Audit log")


class TestFollowUp:
    """What somebody has to see to."""

    def test_a_failure_without_a_ticket(self) -> None:
        records = [Run(record) for record in nightly(at(1, month=9), 62)]
        records[40] = Run(run(at(11), Outcome.FAILED, error="the disk | is `full`"))
        records[41] = Run(run(at(12), Outcome.FAILED), ("OPS-12",))
        text = written(facts(runs=tuple(records), overdue_hours=100))
        assert section(text, "To follow up").splitlines() == [
            "**1 to follow up:**",
            "",
            "- The failed run of 2026-10-11 02:30 has no ticket: `` the disk | is `full` ``",
        ]
        assert table_of(text.split("### Runs that were not")[1])[1:3] == [
            ["2026-10-11 02:30", "schedule", "failed", r"`` the disk \| is `full` ``", "**none**"],
            ["2026-10-12 02:30", "schedule", "failed", "`failed because`", "OPS-12"],
        ]

    def test_a_night_without_a_run(self) -> None:
        records = nightly(at(1, month=9), 62)
        del records[40]
        judged = review(facts(runs=tuple(Run(record) for record in records)))
        assert judged.missed == (at(11),)
        assert judged.slots == 31
        follow_up = section(written(judged), "To follow up")
        assert "No run at all for 1 of 31 scheduled times: 2026-10-11 02:30" in follow_up
        assert "2 d without a good backup, from 2026-10-10 02:30 to 2026-10-12 02:30" in follow_up

    def test_a_late_run_serves_its_night(self) -> None:
        records = nightly(at(1, month=9), 62)
        records[40] = run(at(11, 23), trigger=Trigger.CATCH_UP)
        assert review(facts(runs=tuple(Run(record) for record in records))).missed == ()

    def test_nights_before_the_installation_are_nobodys(self) -> None:
        records = nightly(at(20), 13)
        judged = review(facts(installed_at=at(19, 10), runs=tuple(Run(record) for record in records)))
        assert (judged.slots, judged.missed) == (12, ())

    def test_a_month_that_is_not_over(self) -> None:
        records = tuple(Run(record) for record in nightly(at(1, month=9), 40))
        judged = review(facts(now=at(10, 12), runs=records))
        assert (judged.slots, judged.missed, judged.is_partial) == (10, (), True)
        assert "not over" in written(judged)

    def test_not_one_good_backup(self) -> None:
        judged = review(facts(runs=(Run(run(at(3), Outcome.FAILED), ("OPS-1",)),)))
        assert judged.longest_gap is not None
        assert judged.longest_gap.is_open
        assert "- Not one good backup\n" in section(written(judged), "To follow up")

    def test_the_day_of_25_hours_is_no_gap(self) -> None:
        begin, end = bounds("2026-10", BERLIN)
        slots = tuple(datetime(2026, 10, day, 2, 30, tzinfo=BERLIN) for day in range(1, 32))
        slots += (datetime(2026, 11, 1, 2, 30, tzinfo=BERLIN),)
        records = tuple(Run(run(slot.astimezone(UTC))) for slot in slots)
        judged = review(facts(begin=begin, end=end, slots=slots, runs=records, installed_at=slots[0]))
        assert judged.longest_gap is not None
        assert judged.longest_gap.seconds == 25 * 3600
        assert not judged.is_gap_too_long
        assert judged.missed == ()

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"drills": ()}, "No drill has passed this month"),
            (
                {
                    "drills": (
                        DrillRecord(trigger=Trigger.CLI, started_at=at(4), outcome=Outcome.SUCCESS),
                        DrillRecord(trigger=Trigger.CLI, started_at=at(11), outcome=Outcome.FAILED, error="smoke"),
                    )
                },
                "The last drill, of 2026-10-11 02:30, failed: `smoke`",
            ),
            (
                {"restores": (Restore(started_at=at(9), artifact="a", outcome=RestoreOutcome.FAILED, error="no"),)},
                "The restore of 2026-10-09 02:30 ended as failed: `no`",
            ),
            (
                {
                    "chain": ChainState(
                        ok=False, checked=3, first_seq=1, last_seq=3, first_at=at(1), problems=("f:2: x",)
                    )
                },
                "The audit log is not as it was written: f:2: x",
            ),
            ({"chain": ChainState(ok=False, problems=("no permission",))}, "could not be checked: no permission"),
            (
                {"chain": ChainState(ok=True, checked=3, first_seq=7, last_seq=9, first_at=at(5), last_hash="a")},
                "The audit log begins at 2026-10-05 02:30 only",
            ),
            (
                {"disagreements": (Disagreement(what=Told.RUN, started_at=at(3), catalog=None, log="failed"),)},
                "Places where catalog and audit log disagree: 1",
            ),
        ],
    )
    def test_what_else(self, more: dict[str, Any], said: str) -> None:
        assert said in section(written(good_month(**more)), "To follow up")

    def test_incidents_and_their_deadline(self) -> None:
        restored = RestoreRecord(started_at=at(9), artifact="a", target="/db")
        base = Incident(id=1, opened_at=at(9), deadline_at=at(10), restore=restored)
        incidents = (
            replace(base, closed_at=at(9, 20)),
            replace(base, id=2, closed_at=at(10, 5)),
            replace(base, id=3),
        )
        text = written(good_month(incidents=incidents))
        assert section(text, "To follow up").splitlines()[2:] == [
            "- Incident 2 was closed 3 h after its deadline",
            "- Incident 3 is open and past its deadline, 2026-10-10 02:30",
        ]
        assert [row[-2:] for row in table_of(section(text, "Restores and incidents"))[1:]] == [
            ["2026-10-09 20:30", "in time"],
            ["2026-10-10 05:30", "3 h late"],
            ["open", "22 d 6 h late"],
        ]

    def test_a_thousand_failures_stay_readable(self) -> None:
        records = tuple(Run(run(at(1) + timedelta(minutes=30 * n), Outcome.FAILED)) for n in range(1000))
        text = written(facts(runs=records))
        assert "990 more failed runs without a ticket" in text
        assert len(text.splitlines()) < 150


class TestSections:
    def test_by_hand(self) -> None:
        deeds = (
            Deed(at=at(5), act=Act.PIN, actor="akira", detail="scpln-20261004_0230.db.gz"),
            Deed(at=at(6), act=Act.RUN, actor=None, detail="scpln-20261006_0230.db.gz"),
        )
        text = written(good_month(deeds=deeds))
        assert table_of(section(text, "Done by hand"))[1:] == [
            ["2026-10-05 02:30", "akira", "pinned", "`scpln-20261004_0230.db.gz`"],
            ["2026-10-06 02:30", "(a signal)", "backup", "`scpln-20261006_0230.db.gz`"],
        ]

    def test_deletions_by_reason(self) -> None:
        deletions = tuple(Deletion(at=at(day), name=f"n{day}", reason="31 days old, past 30") for day in range(1, 31))
        text = written(good_month(deletions=(*deletions, Deletion(at=at(3), name="x", reason="other"))))
        assert table_of(section(text, "Deleted by retention"))[1:] == [
            ["30", "31 days old, past 30", "`n1` - `n30`"],
            ["1", "other", "`x`"],
        ]

    def test_besides(self) -> None:
        notables = tuple(Notable(at=at(3), trouble=trouble, detail="why") for trouble in Trouble)
        text = section(written(good_month(notables=notables, daemon_starts=3), "ja"), "その他の記録")
        assert text.splitlines()[0] == "- デーモンの起動：3回"
        assert len(text.splitlines()) == 1 + len(Trouble)


def test_both_languages_say_the_same() -> None:
    """The same fields in the same texts, and words for everything."""
    for name in ENGLISH.__dataclass_fields__:
        english, japanese = getattr(ENGLISH, name), getattr(JAPANESE, name)
        if isinstance(english, str):
            assert set(re.findall(r"{\w*}", english)) == set(re.findall(r"{\w*}", japanese)), name
        else:
            assert english.keys() == japanese.keys(), name
    for texts in TEXTS.values():
        for kind, words in ((Trigger, texts.triggers), (Outcome, texts.outcomes), (Act, texts.acts)):
            assert set(words) == set(kind)
        assert set(texts.restore_outcomes) == set(RestoreOutcome)
        assert set(texts.troubles) == set(Trouble)
        assert set(texts.told) == set(Told)


MOMENTS = st.integers(0, 80 * 24 * 60).map(lambda minutes: at(1, month=9) + timedelta(minutes=minutes))
TEXT = st.text(max_size=30)
RUNS = st.builds(
    lambda start, outcome, trigger, error, seconds, interrupted: run(
        start, outcome, trigger=trigger, error=error, duration_seconds=seconds, interrupted=interrupted
    ),
    MOMENTS,
    st.sampled_from(Outcome),
    st.sampled_from(Trigger),
    st.none() | TEXT,
    st.none() | st.floats(0, 1e6),
    st.booleans(),
)


@given(
    records=st.lists(RUNS, max_size=40),
    tickets=st.lists(st.sampled_from(["OPS-1", "OPS-2"]), max_size=2),
    restores=st.lists(st.builds(Restore, started_at=MOMENTS, artifact=TEXT, outcome=st.sampled_from(RestoreOutcome))),
    deeds=st.lists(st.builds(Deed, at=MOMENTS, act=st.sampled_from(Act), actor=st.none() | TEXT, detail=TEXT)),
    now=MOMENTS,
    locale=st.sampled_from(["ja", "en"]),
)
@settings(deadline=None, max_examples=80)
def test_any_month_has_a_review(
    records: list[RunRecord],
    tickets: list[str],
    restores: list[Restore],
    deeds: list[Deed],
    *,
    now: datetime,
    locale: str,
) -> None:
    records.sort(key=lambda record: record.started_at)
    judged = review(
        facts(
            runs=tuple(Run(record, tuple(tickets)) for record in records),
            restores=tuple(restores),
            deeds=tuple(deeds),
            now=now,
        )
    )
    text = written(judged, locale)
    assert len(judged.runs) == sum(BEGIN <= record.started_at < END for record in records)
    for night, after in zip(judged.facts.slots, judged.facts.slots[1:], strict=False):
        is_due = night < min(END, now - timedelta(hours=2))
        ran = any(night <= record.started_at < after for record in records)
        assert (night in judged.missed) == (is_due and not ran)
    blocks = text.split("\n\n")
    for block in (block for block in blocks if block.startswith("|")):
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1, block
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == 10


class Keeper:
    """An installation with a past, told to the catalog and the audit log as the daemon and people tell it."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        Catalog.open(self.place.state / "catalog.db", TOKYO, at(1, month=6))  # the day of the installation
        self.app = self.started("daemon")
        self.app.catalog.register_channels(["audit", "jira"])

    def started(self, actor: str) -> App:
        return App.build(load(self.place.config, {}), Announcer(), as_root=True, actor=actor)

    def happen(self, record: RunRecord, actor: str = "daemon") -> None:
        catalog = self.started(actor).catalog if actor != "daemon" else self.app.catalog
        number = catalog.begin_run(record.trigger, record.started_at)
        catalog.finish_run(replace(record, id=number))

    def announce(self, event: events.Event, moment: datetime, actor: str = "daemon") -> None:
        catalog = self.started(actor).catalog
        assert catalog.keep_event(event, moment)

    def write_log(self) -> None:
        trail = AuditTrail(
            self.app.catalog,
            self.place.folder / "backup.log",
            self.app.state_folder,
            database="scpln",
            environment="test",
            host="db1",
        )
        trail.catch_up()

    def ticket(self, start: datetime, name: str) -> None:
        entries = self.app.catalog.entries()
        about = [
            e.id for e in entries if isinstance(e.event, events.RunFinished) and e.event.record.started_at == start
        ]
        assert about
        self.app.catalog.settle("jira", about[0], at=start, about=about, ref=name)

    def review(self, month: str = "2026-10", now: datetime = MADE) -> operation.Made:
        return operation.review(self.app.house, month, now)

    def reviews_announced(self) -> list[events.ReviewMade]:
        return [e.event for e in self.app.catalog.entries() if isinstance(e.event, events.ReviewMade)]


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    found = Keeper(tmp_path)
    for record in nightly(at(1), 31):
        failed = record.started_at in {at(11), at(12)}
        found.happen(run(record.started_at, Outcome.FAILED, error="disk full") if failed else record)
    found.ticket(at(11), "OPS-7")
    found.happen(run(at(1, month=11)))
    found.write_log()
    return found


class TestTheOperation:
    def test_it_is_kept_and_announced_once(self, keeper: Keeper) -> None:
        made = keeper.review()
        path = keeper.place.state / "reviews" / "2026-10.md"
        assert made.path == str(path)
        assert path.read_text(encoding="utf-8") == made.text
        assert made.unticketed == (at(12),)
        (announced,) = keeper.reviews_announced()
        assert (announced.month, announced.path, announced.text) == ("2026-10", made.path, made.text)
        assert announced.unticketed == (at(12),)
        # A ticket that came later does not change what was announced, and a lost file comes back.
        keeper.ticket(at(12), "OPS-8")
        path.unlink()
        assert keeper.review(now=MADE + timedelta(days=1)) == made
        assert path.read_text(encoding="utf-8") == made.text
        assert len(keeper.reviews_announced()) == 1

    def test_what_it_says(self, keeper: Keeper) -> None:
        text = keeper.review().text
        assert "The failed run of 2026-10-12 02:30 has no ticket: `disk full`" in text
        assert ["2026-10-11 02:30", "schedule", "failed", "`disk full`", "OPS-7"] in table_of(
            text.split("### Runs that were not")[1]
        )
        assert "Scheduled times without any run: none of 31" in text
        assert "Lines 1 to 32, since" in section(text, "Audit log")
        assert "disagree" not in text

    def test_a_draft_is_written_nowhere(self, keeper: Keeper) -> None:
        before = sorted(keeper.place.folder.rglob("*"))
        made = operation.draft(keeper.app.house, "2026-10", MADE, "ja")
        assert made.path is None
        assert made.text.startswith("# 月次レビュー")
        assert sorted(keeper.place.folder.rglob("*")) == before
        assert keeper.reviews_announced() == []

    def test_who_did_what(self, keeper: Keeper) -> None:
        keeper.happen(run(at(5, 14), trigger=Trigger.CLI), "akira (as root)")
        keeper.happen(run(at(6, 14), trigger=Trigger.SIGNAL))
        restore = RestoreRecord(
            started_at=at(7, 10),
            finished_at=at(7, 11),
            artifact="a.db.gz",
            target="/db",
            user="akira (as root)",
            outcome=RestoreOutcome.SUCCESS,
        )
        keeper.app.catalog.add_restore(restore)
        keeper.announce(events.ArtifactPinned(name="b.db.gz", pinned=True), at(8), "hana")
        for name in ("c.db.gz", "d.db.gz"):
            keeper.announce(events.ArtifactDeleted(name=name, reason="old"), at(9), "hana")
            keeper.announce(events.ArtifactDeleted(name=f"by-itself-{name}", reason="old"), at(9))
        keeper.announce(events.DaemonStarted(version="1"), at(10))
        keeper.write_log()
        text = keeper.review().text
        assert table_of(section(text, "Done by hand"))[1:] == [
            ["2026-10-05 14:30", "akira (as root)", "backup", "`scpln-20261005_1430.db.gz`"],
            ["2026-10-06 14:30", "(a signal)", "backup", "`scpln-20261006_1430.db.gz`"],
            ["2026-10-07 10:30", "akira (as root)", "restore", "`a.db.gz`"],
            ["2026-10-08 02:30", "hana", "pinned", "`b.db.gz`"],
            ["2026-10-09 02:30", "hana", "sweep", "`2: c.db.gz … d.db.gz`"],
        ]
        assert table_of(section(text, "Deleted by retention"))[1][0] == "4"
        assert "started 1 times" in text

    def test_an_audit_log_that_somebody_has_worked_on(self, keeper: Keeper) -> None:
        log = keeper.place.folder / "backup.log"
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(lines[:10] + lines[11:]))
        text = keeper.review().text
        follow_up = section(text, "To follow up")
        assert "- The audit log is not as it was written: backup.log:11: missing: seq 11" in follow_up
        assert "Places where catalog and audit log disagree: 1" in follow_up
        assert table_of(section(text, "Audit log"))[1:] == [["2026-10-11 02:30", "Run", "failed", "not there"]]

    def test_a_catalog_that_was_lost(self, keeper: Keeper) -> None:
        """Failed runs stand in no manifest: of them only the audit log knows."""
        (keeper.place.state / "catalog.db").unlink()
        keeper.app = keeper.started("daemon")
        text = keeper.review().text
        assert table_of(section(text, "Runs"))[1] == ["schedule", "29", "0", "0", "2", "31"]
        assert ["2026-10-11 02:30", "Run", "not there", "failed"] in table_of(section(text, "Audit log"))

    def test_what_waits_to_be_logged_is_no_disagreement(self, keeper: Keeper) -> None:
        keeper.happen(run(at(31, 20)))
        assert "disagree" not in keeper.review().text

    def test_a_run_under_way_is_not_judged(self, keeper: Keeper) -> None:
        keeper.app.catalog.begin_run(Trigger.CLI, at(31, 20))
        with keeper.app.house.run_lock("a backup"):
            assert keeper.review().unticketed == (at(12),)

    def test_a_log_that_cannot_be_read(self, keeper: Keeper) -> None:
        log = keeper.place.folder / "backup.log"
        log.unlink()
        log.mkdir()
        text = keeper.review().text
        assert re.search(r"- The audit log could not be checked: .*backup\.log: cannot be read", text)
        assert ["schedule", "29", "0", "0", "2", "31"] in table_of(section(text, "Runs"))

    def test_without_any_past(self, tmp_path: Path) -> None:
        found = Keeper(tmp_path)
        text = found.review().text
        assert "There were no runs." in text
        assert "There is no audit log yet." in text

    def test_a_full_disk_is_named(self, keeper: Keeper) -> None:
        (keeper.place.state / "reviews").write_text("in the way")
        with pytest.raises(BackupError, match="reviews"):
            keeper.review()
        assert keeper.reviews_announced() == []
