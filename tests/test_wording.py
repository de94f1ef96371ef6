"""What people read about each event, in both languages."""

import os
import re
import string
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scpln_backup.config.schema import Locale
from scpln_backup.events import ArtifactPinned, ArtifactVerified, IncidentClosed, IncidentOverdue, RunFinished
from scpln_backup.model import Outcome, Severity, State
from scpln_backup.observers.message import Message
from scpln_backup.observers.notices import notice
from scpln_backup.observers.wording import message as wording
from scpln_backup.observers.wording.english import ENGLISH
from scpln_backup.observers.wording.figures import duration, listing, ls_size
from scpln_backup.observers.wording.japanese import JAPANESE
from scpln_backup.observers.wording.message import digest, message
from scpln_backup.records.outbox import Cause
from support import told
from support.told import DAY, INCIDENT, MINUTE, NIGHT, ZONE, Case, around, artifact, entry, run

CASES = list(told.cases())
JAPANESE_LETTERS = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
PLACEHOLDER = re.compile(r"\{[a-z_]*\}")


def say(case: Case, locale: Locale = Locale.EN) -> Message:
    return message(entry(case.event), case.cause, around(locale, **case.changes))


def case(label: str) -> Case:
    return next(case for case in CASES if case.label == label)


def everything(what: Message) -> str:
    facts = (f"{label}: {value}" for label, value in what.facts)
    return "\n".join([what.headline, *what.sentences, *facts, what.listing or "", what.document or ""])


def fact(what: Message, label: str) -> str:
    return dict(what.facts)[label]


def texts_of(holder: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in it, with where it stands."""
    if is_dataclass(holder):
        for each in fields(holder):
            yield from texts_of(getattr(holder, each.name), f"{path}.{each.name}")
    elif isinstance(holder, Mapping):
        for key, value in holder.items():
            yield from texts_of(value, f"{path}[{key}]")
    else:
        yield path, holder


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}


def test_both_languages_say_the_same_things_with_the_same_figures():
    english, japanese = dict(texts_of(ENGLISH)), dict(texts_of(JAPANESE))
    assert english.keys() == japanese.keys()
    for path, text in english.items():
        # A sentence may leave out what it does not need, but there is nothing else to fill in.
        assert placeholders(text) == placeholders(japanese[path]), path
    assert [path for path, text in japanese.items() if len(text) > 12 and not JAPANESE_LETTERS.search(text)] == [
        ".headline",
        ".digest.whole",
    ]


def test_every_event_that_means_something_has_its_own_words():
    assert set(notice.registry) <= set(wording._say.registry)
    assert {type(case.event) for case in CASES} >= set(notice.registry) - {object, told.Event}


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_message_is_whole(case, locale):
    what = say(case, locale)
    assert not PLACEHOLDER.search(everything(what)), everything(what)
    assert "scpln" in what.headline
    assert "production" in what.headline
    assert len(what.headline) <= 150
    for text in (what.headline, *what.sentences, *(value for _, value in what.facts)):
        assert text.strip() == text != ""
        assert "\n" not in text
        assert "None" not in text
    labels = [label for label, _ in what.facts]
    assert len(set(labels)) == len(labels)
    if locale is Locale.JA:
        assert all(JAPANESE_LETTERS.search(text) for text in (what.headline, *what.sentences, *labels))
        # Sentences are polite, or a label with what belongs to it.
        assert all(re.search("です|ます|ません|ました|でした|ください|[^：]：", text) for text in what.sentences)  # noqa: RUF001 - Japanese punctuation
        assert not what.headline.endswith("。")
    else:
        assert not JAPANESE_LETTERS.search(everything(what))


@pytest.mark.parametrize(
    ("label", "commands"),
    [
        ("degraded", ["scpln-backup backup --wait"]),
        (
            "suspect",
            [
                f"scpln-backup verify {told.name(0)} --accept-shrink",
                f"scpln-backup pin {told.name(1)}",
                f"scpln-backup restore {told.name(1)}",
            ],
        ),
        ("suspect, alone", [f"scpln-backup verify {told.name(0)} --accept-shrink"]),
        ("failed", ["journalctl -u scpln-backup -e", "scpln-backup backup --wait"]),
        ("interrupted", ["scpln-backup backup --wait"]),
        ("overdue", ["systemctl status scpln-backup", "scpln-backup status", "scpln-backup backup --wait"]),
        ("overdue, never", ["systemctl status scpln-backup", "scpln-backup backup --wait"]),
        ("service failed", ["systemctl reset-failed scpln-backup.service", "systemctl start scpln-backup.service"]),
        ("corrupt", ["scpln-backup backup --wait", "scpln-backup verify --all"]),
        ("drill failed", ["scpln-backup drill"]),
        ("restore begun", ["scpln-backup restore --resume", "scpln-backup restore --abort"]),
        ("restored", ["scpln-backup rebuild --since 2026-11-21"]),
        ("restore failed", ["scpln-backup restore --abort"]),
        ("restore rolled-back", ["scpln-backup restore --dry-run"]),
        ("incident", ["scpln-backup incident show 1"]),
        ("incident overdue", ["scpln-backup incident note 1", "scpln-backup incident close 1"]),
    ],
)
@pytest.mark.parametrize("locale", Locale)
def test_what_went_wrong_comes_with_what_to_do(label, commands, locale):
    sentences = "\n".join(say(case(label), locale).sentences)
    for command in commands:
        assert f"`{command}" in sentences


@pytest.mark.parametrize(
    ("label", "severity", "over"),
    [
        ("success", Severity.INFO, False),
        ("recovered", Severity.INFO, True),
        ("recovered from a gap", Severity.INFO, True),
        ("degraded", Severity.WARNING, False),
        ("failed again", Severity.CRITICAL, False),
        ("interrupted", Severity.WARNING, False),
        ("service again", Severity.INFO, True),
        ("sound again", Severity.INFO, True),
        ("deleted", Severity.INFO, True),
        ("drill again", Severity.INFO, True),
        ("incident closed", Severity.INFO, True),
        ("test", Severity.INFO, False),
    ],
)
def test_how_much_it_matters_and_whether_it_tells_of_an_end(label, severity, over):
    what = say(case(label))
    assert (what.severity, what.over) == (severity, over)


# Runs


def test_a_success_in_english():
    what = say(case("success"))
    assert what.headline == "scpln (production): backup done, 112 MiB in 3.2 s"
    assert what.sentences == ()
    assert what.facts == (
        ("Began", "2026-11-22 02:30 (schedule)"),
        ("Backup", "scpln-20261122_0230.db.gz"),
        ("Size", "112 MiB (from 1.0 GiB), ±0.0 % against the last 7"),
        ("Duration", "3.2 s, ±0.0 % against the last 7"),
        ("Writers waited", "at most 0.1 s"),
        ("Next run", "2026-11-23 02:30"),
        ("Status page", "http://127.0.0.1:9817/"),
    )


def test_a_success_in_japanese():
    what = say(case("success"), Locale.JA)
    assert what.headline == "scpln（production）：バックアップ成功（112 MiB、3.2秒）"  # noqa: RUF001 - Japanese punctuation
    assert fact(what, "サイズ") == "112 MiB（元のサイズ 1.0 GiB）、直近7回比 ±0.0 %"  # noqa: RUF001 - as above


def test_a_recovery_says_since_when_and_how_many():
    assert say(case("recovered")).sentences == ("From 2026-11-20 02:30 on, 2 runs had gone wrong. This one is good.",)
    gap = say(case("recovered from a gap"))
    assert gap.sentences == ("There is a good backup again; the one before it is of 2026-11-18 02:30.",)


def test_what_was_told_reaches_further_than_the_runs_that_are_known():
    bad = tuple(run(days, Outcome.FAILED) for days in range(1, 4))
    cause = Cause(since=NIGHT - 40 * DAY, count=40)
    what = message(entry(RunFinished(record=run(0))), cause, around(runs=(run(0), *bad)))
    assert what.sentences == ("From 2026-10-13 02:30 on, 40 runs had gone wrong. This one is good.",)


def test_a_failure_after_others_says_so():
    assert "3 runs in a row have gone wrong, since 2026-11-20 02:30." in say(case("failed again")).sentences
    assert not any("in a row" in sentence for sentence in say(case("failed")).sentences)


def test_a_failure_has_its_reason_in_the_headline_and_all_of_it_below():
    what = say(case("failed"))
    assert what.headline.endswith("need 3.4 GiB")
    assert what.sentences[0] == f"Error: {told.NO_SPACE}"


def test_only_verified_artifacts_are_called_good():
    doubtful = (artifact(0, state=State.SUSPECT), artifact(1, state=State.CORRUPT), artifact(2, state=State.UNVERIFIED))
    event = told.failed()
    none = message(entry(event), None, around(artifacts=doubtful))
    assert "No verified backup is known: `scpln-backup list`." in none.sentences
    one = message(entry(event), None, around(artifacts=(*doubtful, artifact(3))))
    assert f"Last good backup: {told.name(3)}, of 2026-11-19 02:30, 3 d old." in one.sentences


def test_what_is_corrupt_is_not_the_last_good_one():
    what = message(entry(ArtifactVerified(name=told.name(0), error="cut off")), None, around())
    assert any(sentence.startswith(f"Last good backup: {told.name(1)}") for sentence in what.sentences)


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (1013, [1000] * 7, "+1.3 % against the last 7"),
        (987, [1000] * 9, "\N{MINUS SIGN}1.3 % against the last 7"),
        (3000, [1000, 1000], "+200 % against the last 2"),
        (1000, [1000], "±0.0 % against the last one"),
        # The newest seven count, and of these the middle one: an odd night does not move it.
        (1000, [1000, 5000, 1000, 1000, 1000, 10, 1000, 7000, 7000], "±0.0 % against the last 7"),
    ],
)
def test_the_trend_of_the_size(now, before, said):
    tonight = run(0, artifact_bytes=now, raw_bytes=None)
    earlier = tuple(run(days, artifact_bytes=size) for days, size in enumerate(before, start=1))
    what = message(entry(RunFinished(record=tonight)), None, around(runs=(tonight, *earlier)))
    assert fact(what, "Size").endswith(said)


def test_runs_that_made_nothing_and_later_ones_are_no_measure():
    others = (run(1, Outcome.FAILED, duration_seconds=900.0), run(-1, artifact_bytes=1, duration_seconds=900.0))
    what = message(entry(RunFinished(record=run(0))), None, around(runs=others))
    assert fact(what, "Size") == "112 MiB (from 1.0 GiB)"
    assert fact(what, "Duration") == "3.2 s"


def test_an_error_of_many_lines_becomes_one():
    event = RunFinished(record=run(0, Outcome.FAILED, error="first\n  second\tthird; do this"))
    what = message(entry(event), None, around())
    assert what.sentences[0] == "Error: first second third; do this"
    assert what.headline == "scpln (production): backup failed: first second third"


# Incidents, reviews, tests


def test_the_report_of_a_closed_incident_is_in_it():
    what = say(case("incident closed"))
    assert what.document == told.REPORT
    assert "in time" in what.sentences[0]
    late = say(case("incident closed late"))
    assert "12 h after its deadline" in late.sentences[0]


def test_an_overdue_incident_says_what_its_report_lacks():
    event = IncidentOverdue(incident=replace(INCIDENT, scope="Planners"))
    assert "Still missing: prevention." in message(entry(event), None, around()).sentences[0]
    japanese = message(entry(event), None, around(Locale.JA)).sentences[0]
    assert "再発防止" in japanese
    assert "影響範囲" not in japanese


def test_a_closing_whose_time_is_not_known_is_told_of_now():
    event = IncidentClosed(incident=INCIDENT, report="")
    what = message(entry(event), None, around())
    assert what.document is None
    assert fact(what, "Closed") == "2026-11-22 02:31"


def test_a_kind_that_nobody_asks_for_has_a_line_all_the_same():
    what = message(entry(ArtifactPinned(name="x", pinned=True)), None, around())
    assert what.headline == "scpln (production): ArtifactPinned"


# Many in one


def many() -> list[Any]:
    events = [told.run(days) for days in (5, 4)] + [told.run(3, Outcome.FAILED, error=told.NO_SPACE), told.run(2)]
    return [
        entry(RunFinished(record=record), number, record.started_at + MINUTE)
        for number, record in enumerate(events, start=7)
    ]


def test_a_digest_has_a_line_for_each_failures_first():
    what = digest(many(), around())
    assert what.headline == "scpln (production): 4 messages since 2026-11-17 02:31"
    assert what.severity is Severity.CRITICAL
    assert what.sentences[1] == "Something went wrong in 1 of them; these come first."
    assert what.document is not None
    assert [line[:18] for line in what.document.splitlines()] == [
        "- 2026-11-19 02:31",
        "- 2026-11-17 02:31",
        "- 2026-11-18 02:31",
        "- 2026-11-20 02:31",
    ]
    assert what.document.splitlines()[0].endswith("need 3.4 GiB")
    assert what.listing is not None


def test_a_digest_of_good_news_is_no_alarm():
    what = digest(many()[:2], around(Locale.JA))
    assert what.headline == "scpln（production）：2026-11-17 02:31 以降の通知2件"  # noqa: RUF001 - Japanese punctuation
    assert what.severity is Severity.INFO
    assert len(what.sentences) == 1


@pytest.mark.parametrize("locale", Locale)
def test_every_event_has_its_line_in_a_digest(locale):
    entries = [entry(case.event, number, NIGHT + number * MINUTE) for number, case in enumerate(CASES)]
    what = digest(entries, around(locale))
    assert what.document is not None
    assert len(what.document.splitlines()) == len(CASES)
    assert not PLACEHOLDER.search(what.document)


# The listing

SIZES = sorted(
    {0, 1, 9, 10, 512, 999, 1000}
    | {
        size + step
        for power in range(1, 5)
        for size in (1024**power, 10 * 1024**power, 1023 * 1024**power, int(9.95 * 1024**power), 999 * 1024**power)
        for step in (-1, 0, 1)
    }
    | {7**power for power in range(15)}
)
SIZES = [size for size in SIZES if size < 2**43]  # ext4 takes no larger files


def ls(folder, zone: str) -> list[list[str]]:
    """Size, date, time and name of each file, as ls prints them."""
    command = ["ls", "-lh", "--time-style=+%Y-%m-%d %H:%M", str(folder)]
    environment = {"PATH": os.environ["PATH"], "TZ": zone, "LC_ALL": "C"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [line.split()[4:] for line in printed.splitlines()[1:]]


def test_sizes_are_those_of_ls(tmp_path):
    for size in SIZES:
        with (tmp_path / f"{size:020}").open("wb") as file:
            file.truncate(size)
    printed = {int(name): shown for shown, _, _, name in ls(tmp_path, "UTC")}
    assert printed == {size: ls_size(size) for size in SIZES}


@given(st.integers(min_value=0, max_value=2**63))
def test_a_size_is_never_told_too_small(size):
    shown = ls_size(size)
    number, factor = (shown[:-1], 1024 ** ("KMGTPE".index(shown[-1]) + 1)) if shown[-1].isalpha() else (shown, 1)
    assert float(number) * factor >= size * (1 - 1e-12)
    assert len(shown) <= 5


def test_the_listing_is_that_of_ls_and_tail(tmp_path):
    artifacts = []
    for days in range(13):
        path = tmp_path / told.name(days)
        path.write_bytes(b"x" * (1000 + 7 ** min(days, 6)))
        modified_at = NIGHT - days * DAY + timedelta(seconds=4)
        os.utime(path, (modified_at.timestamp(), modified_at.timestamp()))
        artifacts.append(artifact(days, bytes=path.stat().st_size))
    shown = listing(artifacts, ZONE)
    assert shown is not None
    assert [line.split() for line in shown.splitlines()] == ls(tmp_path, "Asia/Tokyo")[-10:]
    assert len({line.index(" 2026") for line in shown.splitlines()}) == 1


def test_the_listing_keeps_the_order_of_time_when_the_clock_is_set_back():
    berlin = ZoneInfo("Europe/Berlin")
    first = NIGHT.replace(year=2026, month=10, day=25, hour=2, minute=30, tzinfo=berlin)
    second = first.replace(fold=1)
    later = artifact(0, name="scpln-20261025_0230.db.gz", taken_at=second, modified_at=second)
    sooner = artifact(0, name="scpln-20261025_0230_1.db.gz", taken_at=first, modified_at=first)
    shown = listing([later, sooner], berlin)
    assert shown is not None
    assert [line.split()[-1] for line in shown.splitlines()] == [sooner.name, later.name]


def test_no_artifacts_no_listing():
    assert listing([], ZONE) is None


@given(st.floats(min_value=-5, max_value=10**7))
@settings(deadline=None)
def test_a_duration_is_the_same_in_both_languages(seconds):
    english, japanese = duration(seconds, ENGLISH), duration(seconds, JAPANESE)
    assert re.findall(r"[\d.]+", english) == re.findall(r"[\d.]+", japanese)
    assert " " not in japanese
    assert JAPANESE_LETTERS.search(japanese)
