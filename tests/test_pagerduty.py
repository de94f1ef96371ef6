"""The PagerDuty channel: its plan as properties, its client against a fake that checks the published API.

What Alertmanager sends to PagerDuty goes through the same fake, and is compared with what we send.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.config.schema import Locale
from scpln_backup.errors import DeliveryError
from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    DaemonStarted,
    DrillFinished,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RunFinished,
    ServiceFailed,
    TestMessage,
)
from scpln_backup.model import DrillRecord, Incident, Outcome, RestoreRecord, RunRecord, Severity, Topic, Trigger
from scpln_backup.notify import pagerduty
from scpln_backup.notify.pagerduty import PagerDuty, Resolve, looks_like_routing_key
from scpln_backup.observers.channels.pagerduty import PagerDutyChannel
from scpln_backup.observers.courier import Courier
from scpln_backup.observers.message import Message, Surroundings
from scpln_backup.observers.notices import notice
from scpln_backup.observers.wording.message import message
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.outbox import Cause, Entry
from scpln_backup.support.locks import Lock
from support.fake_pagerduty import ROUTING_KEY, Alerts, Effect, FakePagerDuty
from support.fakes import GARBAGE, TOO_MANY, UNAVAILABLE, Answer, Cut, Hang

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = "scpln-backup/production/scpln/"
DEFAULT_TOPICS = frozenset({Topic.RUN, Topic.OVERDUE, Topic.ARTIFACT})


# Events, and a channel that says them in one line


def run(outcome, *, interrupted=False):
    return RunFinished(
        record=RunRecord(trigger=Trigger.SCHEDULE, started_at=NOW, outcome=outcome, interrupted=interrupted)
    )


def incident(number):
    restore = RestoreRecord(started_at=NOW, artifact="scpln-20261122_0230.db.gz", target="/opt/scpln/data/scpln.db")
    return Incident(id=number, opened_at=NOW, deadline_at=NOW + 24 * HOUR, restore=restore)


FAILED = run(Outcome.FAILED)
SUCCESS = run(Outcome.SUCCESS)
DEGRADED = run(Outcome.DEGRADED)
OVERDUE = BackupOverdue(since=NOW - 25 * HOUR, deadline=NOW - HOUR, hours=24)


def entries(*events, first=1):
    return [Entry(id=first + n, at=NOW + n * HOUR, actor="scpln", event=event) for n, event in enumerate(events)]


def plain(entry, cause):
    times = cause.count if cause is not None else 0
    return Message(
        headline=f"{type(entry.event).__name__} {entry.id}, told {times} times",
        severity=notice(entry.event).severity,
        sentences=("It went wrong.", "See: scpln-backup status"),
        facts=(("Error", "disk full"),),
        listing="-rw-r----- 117M scpln-20261122_0230.db.gz",
    )


def channel(service=None, **changes):
    facts = {
        "topics": DEFAULT_TOPICS,
        "level": Severity.CRITICAL,
        "database": "scpln",
        "environment": "production",
        "host": "db1.example.com",
        "page": None,
        "word": plain,
    }
    return PagerDutyChannel(service or Line(Alerts()), **facts | changes)


def told(*causes, ref=None):
    return {cause: Cause(since=NOW, ref=ref) for cause in causes}


# What becomes of a request: it arrives; it surely does not; nobody knows, and it did or did not.
ARRIVES, LOST, DOUBTFUL_ARRIVED, DOUBTFUL_LOST = "arrives", "lost", "doubtful, arrived", "doubtful, lost"


class Line:
    """To the fake's alerts without the network between. `fates` are those of the coming requests, then all arrive."""

    def __init__(self, alerts):
        self.alerts = alerts
        self.fates = []

    def send(self, letter):
        fate = self.fates.pop(0) if self.fates else ARRIVES
        if fate in (ARRIVES, DOUBTFUL_ARRIVED):
            event = {"event_action": pagerduty.event_action(letter), "dedup_key": letter.dedup_key}
            event |= pagerduty.event_fields(letter)
            answer = self.alerts.enqueue(json.dumps({"routing_key": ROUTING_KEY, **event}).encode())
            assert answer.status == 202
        if fate != ARRIVES:
            raise DeliveryError(fate, unsure=fate != LOST)
        return letter.dedup_key


# The plan


def test_a_failed_run_triggers_with_all_that_the_one_who_is_called_needs():
    (entry,) = entries(FAILED, first=17)
    step = channel(page="https://db1.example.com/").next_step([entry], {})
    assert step.letter == pagerduty.Trigger(
        dedup_key=KEY + "run",
        summary="RunFinished 17, told 0 times",
        source="db1.example.com",
        severity=Severity.CRITICAL,
        at=NOW,
        component="scpln",
        group="production",
        kind="run",
        details={
            "Error": "disk full",
            "details": "It went wrong.\nSee: scpln-backup status",
            "listing": "-rw-r----- 117M scpln-20261122_0230.db.gz",
        },
        page="https://db1.example.com/",
    )
    assert (step.settles, step.opens, step.closes, step.about) == (17, ("run",), (), (17,))


def test_a_further_failure_is_added_to_the_open_alert():
    step = channel().next_step(entries(FAILED, first=18), told("run"))
    assert isinstance(step.letter, pagerduty.Trigger)
    assert (step.letter.dedup_key, step.letter.summary) == (KEY + "run", "RunFinished 18, told 1 times")


def test_a_success_resolves_each_open_cause_with_a_letter_of_its_own():
    waiting = entries(SUCCESS, first=20)
    first = channel().next_step(waiting, told("run", "overdue"))
    assert (first.letter, first.settles, first.closes) == (Resolve(dedup_key=KEY + "run"), 19, ("run",))
    second = channel().next_step(waiting, told("overdue"))
    assert (second.letter, second.closes) == (Resolve(dedup_key=KEY + "overdue"), ("overdue",))
    assert second.key != first.key
    last = channel().next_step(waiting, {})
    assert (last.letter, last.settles) == (None, 20)


def test_a_degraded_run_after_an_overdue_one_resolves_first_and_triggers_then():
    anything = channel(level=Severity.WARNING)
    waiting = entries(DEGRADED)
    first = anything.next_step(waiting, told("overdue"))
    assert (first.letter, first.settles) == (Resolve(dedup_key=KEY + "overdue"), 0)
    second = anything.next_step(waiting, {})
    assert (second.opens, second.settles, second.letter.severity) == (("run",), 1, Severity.WARNING)


def test_nobody_is_woken_for_what_is_over():
    step = channel().next_step(entries(FAILED, OVERDUE, FAILED, SUCCESS), {})
    assert (step.letter, step.settles) == (None, 4)


def test_failures_that_waited_together_are_one_letter():
    step = channel().next_step(
        entries(FAILED, DaemonStarted(version="1"), FAILED, FAILED, DaemonStarted(version="2")), {}
    )
    assert (step.letter.summary, step.settles, step.about) == ("RunFinished 4, told 2 times", 4, (1, 3, 4))
    step = channel().next_step(entries(FAILED, FAILED), told("run"))
    assert step.letter.summary == "RunFinished 2, told 2 times"


def test_a_new_failure_after_a_recovery_calls_again():
    """Somebody who has the old alert in hand would not hear of a trigger that is only added to it."""
    waiting = entries(SUCCESS, FAILED)
    first = channel().next_step(waiting, told("run"))
    assert first.letter == Resolve(dedup_key=KEY + "run")
    assert channel().next_step(waiting, {}).opens == ("run",)


def test_an_alert_that_may_be_open_is_not_left_open():
    """A failure whose letter may have arrived is told, and resolved, even if it is over by then."""
    post = Post(DEFAULT_TOPICS, Severity.CRITICAL)
    post.keep(FAILED)
    post.deliver([DOUBTFUL_ARRIVED])
    post.deliver([LOST])
    post.keep(SUCCESS)
    post.deliver()
    assert [effect.what for effect in post.alerts.effects] == ["opened", "added", "resolved"]


def test_what_nobody_asked_for_is_settled_in_silence():
    waiting = entries(DEGRADED, DrillFinished(record=DrillRecord(trigger=Trigger.CLI, started_at=NOW)), SUCCESS)
    step = channel().next_step(waiting, {})
    assert (step.letter, step.settles) == (None, 3)


def test_an_alert_is_resolved_under_the_key_that_it_was_opened_with():
    """Also where the environment has another name by now."""
    step = channel().next_step(entries(SUCCESS), told("run", ref="scpln-backup/old-name/scpln/run"))
    assert step.letter == Resolve(dedup_key="scpln-backup/old-name/scpln/run")


def test_a_test_has_an_alert_of_its_own_whatever_is_asked_for():
    begin, end = (TestMessage(user="aiko", over=over) for over in (False, True))
    quiet = channel(topics=frozenset())
    (entry,) = entries(begin)
    step = quiet.next_step([entry], {})
    assert (step.letter.dedup_key, step.letter.kind, step.settles) == (KEY + "test", "test", 1)
    step = quiet.next_step(entries(end, first=2), {})
    assert (step.letter, step.settles) == (Resolve(dedup_key=KEY + "test"), 2)


@given(*[st.one_of(st.text(max_size=20), st.text(min_size=220, max_size=260))] * 2)
def test_dedup_keys_are_short_enough_stable_and_distinct(one, other):
    keys = [
        channel().next_step(entries(ArtifactVerified(name=name, error="damaged")), {}).letter.dedup_key
        for name in (one, one, other)
    ]
    assert max(map(len, keys)) <= 255
    assert keys[0] == keys[1]
    assert (keys[0] == keys[2]) == (one == other)


# Any history, cut into any batches, with any fault of the network


outcomes = st.sampled_from(Outcome)
names = st.sampled_from(["scpln-20261121_0230.db.gz", "scpln-20261122_0230.db.gz"])
incidents = st.sampled_from([incident(1), incident(2)])
happenings = st.one_of(
    st.builds(run, outcomes, interrupted=st.booleans()),
    st.just(OVERDUE),
    st.builds(ArtifactVerified, name=names, error=st.sampled_from([None, "damaged"])),
    st.builds(ArtifactDeleted, name=names, reason=st.just("retention")),
    st.builds(
        DrillFinished,
        record=st.builds(DrillRecord, trigger=st.just(Trigger.SCHEDULE), started_at=st.just(NOW), outcome=outcomes),
    ),
    st.builds(IncidentOpened, incident=incidents),
    st.builds(IncidentOverdue, incident=incidents),
    st.builds(IncidentClosed, incident=incidents),
    st.just(DaemonStarted(version="1")),
)
fates = st.lists(st.sampled_from([ARRIVES, LOST, DOUBTFUL_ARRIVED, DOUBTFUL_LOST]), min_size=1, max_size=3)
rounds = st.tuples(st.lists(happenings, max_size=2), fates)
interests = st.tuples(
    st.one_of(st.just(frozenset(Topic)), st.just(DEFAULT_TOPICS), st.frozensets(st.sampled_from(Topic))),
    st.sampled_from(Severity),
)


class Post:
    """As the courier: keeps to what a doubtful delivery has begun with, and notes what was told."""

    def __init__(self, topics, level):
        self.alerts = Alerts()
        self.entries = []
        self.sent = []
        self._line = Line(self.alerts)
        self._channel = channel(self._line, topics=topics, level=level)
        self._settled = 0
        self._begun_key = None
        self._begun_upto = None
        self._causes = {}

    def keep(self, happening):
        self.entries += entries(happening, first=len(self.entries) + 1)

    def deliver(self, fates=()):
        """Until nothing waits, or a request fails."""
        self._line.fates = list(fates)
        while waiting := self._waiting():
            step = self._channel.next_step(waiting, dict(self._causes))
            assert step.settles >= self._settled
            assert step.settles > self._settled or step.closes, "a step without progress"
            if step.letter is None:
                self._settled = step.settles
            elif not self._send(step, waiting):
                return

    def _waiting(self):
        upto = self._begun_upto if self._begun_upto is not None else len(self.entries)
        found = [entry for entry in self.entries if self._settled < entry.id <= upto]
        if not found and self._begun_upto is not None:
            self._begun_key = self._begun_upto = None
            return self._waiting()
        return found

    def _send(self, step, waiting):
        doubtful = step.key == self._begun_key
        self._begun_key, self._begun_upto = step.key, waiting[-1].id
        before = len(self.alerts.effects)
        try:
            ref = self._channel.send(step.letter, step.key, doubtful=doubtful)
        except DeliveryError as error:
            if not error.unsure:
                self._begun_key = self._begun_upto = None
            return False
        finally:
            self.sent += [(step.key, effect.what) for effect in self.alerts.effects[before:]]
        self._begun_key = self._begun_upto = None
        self._settled = step.settles
        for cause in step.opens:
            known = self._causes.get(cause)
            self._causes[cause] = Cause(since=NOW, count=known.count + 1 if known else 1, ref=ref)
        for cause in step.closes:
            del self._causes[cause]
        return True


def history(happenings, topics, level):
    """The effects of telling each at once, as the notices define them, and the causes open at the end."""
    ranks = list(Severity)
    effects, still_open = [], set()
    for happening in happenings:
        meaning = notice(happening)
        asked = not meaning.quiet and meaning.topic in topics and ranks.index(meaning.severity) >= ranks.index(level)
        ended = [
            *meaning.closes,
            *([meaning.opens] if meaning.eases and meaning.opens is not None and not asked else []),
        ]
        effects += [Effect("resolved", KEY + cause) for cause in ended if cause in still_open]
        still_open -= set(ended)
        if meaning.opens is not None and asked:
            effects.append(Effect("added" if meaning.opens in still_open else "opened", KEY + meaning.opens))
            still_open.add(meaning.opens)
    return effects, {KEY + cause for cause in still_open}


@given(st.lists(happenings, max_size=12), interests)
@settings(max_examples=150)
def test_told_at_once_each_happening_has_its_effect(happened, interest):
    post = Post(*interest)
    for happening in happened:
        post.keep(happening)
        post.deliver()
    effects, still_open = history(happened, *interest)
    assert post.alerts.effects == effects
    assert set(post.alerts.open) == still_open


@given(st.lists(happenings, max_size=20), interests)
@settings(max_examples=150)
def test_told_after_an_outage_only_what_lasts_calls(happened, interest):
    post = Post(*interest)
    for happening in happened:
        post.keep(happening)
    post.deliver()
    still_open = history(happened, *interest)[1]
    assert sorted(post.alerts.effects) == sorted(Effect("opened", key) for key in still_open)


@given(st.lists(rounds, max_size=10), interests)
@settings(max_examples=400)
def test_whatever_gets_lost_the_open_alerts_are_the_open_causes(course, interest):
    post = Post(*interest)
    for happened, coming in course:
        for happening in happened:
            post.keep(happening)
        post.deliver(coming)
    post.deliver()
    effects, still_open = history([entry.event for entry in post.entries], *interest)
    assert set(post.alerts.open) == still_open

    # Each letter, however often it is sent, is seen once, and no alert is resolved that was not open.
    seen = {}
    for key, what in post.sent:
        seen.setdefault(key, []).append(what)
    for key, effects_of_one in seen.items():
        first, *again = effects_of_one
        assert first in (("resolved",) if key.startswith("resolve") else ("opened", "added")), (key, effects_of_one)
        assert set(again) <= {"added", "dropped"}, (key, effects_of_one)
    opened = [effect for effect in post.alerts.effects if effect.what == "opened"]
    assert len(opened) <= len([effect for effect in effects if effect.what == "opened"])


# The client


@pytest.fixture
def fake():
    with FakePagerDuty() as fake:
        yield fake


def service(fake, **changes):
    return PagerDuty(ROUTING_KEY, url=fake.url, **{"timeout_seconds": 10, **changes})


def trigger(**changes):
    facts = {
        "dedup_key": KEY + "run",
        "summary": "production/scpln: the backup failed: disk full",
        "source": "db1.example.com",
        "severity": Severity.CRITICAL,
        "at": datetime.fromisoformat("2026-11-22T02:30:00+09:00"),
        "component": "scpln",
        "group": "production",
        "kind": "run",
        "details": {"エラー": "ディスクがいっぱいです"},
        "page": "https://db1.example.com:9817/",
    }
    return pagerduty.Trigger(**facts | changes)


def failure(service, event=None):
    """Of a delivery that must not succeed."""
    with pytest.raises(DeliveryError) as caught:
        service.send(event or trigger())
    return caught.value


def test_a_trigger_as_it_arrives(fake):
    assert service(fake).send(trigger()) == KEY + "run"
    assert fake.requests[0].json() == {
        "routing_key": ROUTING_KEY,
        "event_action": "trigger",
        "dedup_key": KEY + "run",
        "payload": {
            "summary": "production/scpln: the backup failed: disk full",
            "source": "db1.example.com",
            "severity": "critical",
            "timestamp": "2026-11-22T02:30:00.000+09:00",
            "component": "scpln",
            "group": "production",
            "class": "run",
            "custom_details": {"エラー": "ディスクがいっぱいです"},
        },
        "client": "scpln-backup",
        "client_url": "https://db1.example.com:9817/",
        "links": [{"href": "https://db1.example.com:9817/", "text": "scpln-backup: status"}],
    }


@pytest.mark.parametrize("locale", Locale)
def test_pagerduty_takes_what_the_wording_says(fake, locale):
    around = Surroundings(
        database="scpln",
        environment="production",
        host="db1.example.com",
        root="/var/backups/scpln",
        locale=locale,
        zone=UTC,
        now=NOW,
    )
    everything = channel(
        service(fake),
        topics=frozenset(Topic),
        level=Severity.INFO,
        word=lambda entry, cause: message(entry, cause, around),
    )
    happened = [
        FAILED,
        OVERDUE,
        ArtifactVerified(name="scpln-20261122_0230.db.gz", error="sha256 differs"),
        DrillFinished(record=DrillRecord(trigger=Trigger.CLI, started_at=NOW, error="the smoke test failed")),
        IncidentOverdue(incident=incident(1)),
        ServiceFailed(unit="scpln-backup.service", problem="exit-code", invocation="1f"),
        TestMessage(user="aiko"),
    ]
    for entry in entries(*happened):
        step = everything.next_step([entry], {})
        everything.send(step.letter, step.key, doubtful=False)
    payloads = list(fake.alerts.open.values())
    assert [payload.kind for payload in payloads] == [
        "run", "overdue", "artifact", "drill", "incident", "service", "test",
    ]  # fmt: skip
    assert all("scpln" in payload.summary and "production" in payload.summary for payload in payloads)
    assert [payload.severity for payload in payloads[:3]] == ["critical"] * 3
    assert payloads[-1].severity == "info"


def test_sent_again_it_is_the_same_alert_and_resolved_it_is_gone(fake):
    line = service(fake)
    line.send(trigger())
    line.send(trigger(summary="and again"))
    line.send(Resolve(dedup_key=KEY + "run"))
    assert [effect.what for effect in fake.alerts.effects] == ["opened", "added", "resolved"]
    assert fake.alerts.open == {}


def test_what_is_too_long_or_no_text_is_made_to_fit(fake):
    """An event that PagerDuty refuses would be refused each time, and hold up all that come after it."""
    service(fake).send(
        trigger(summary="長い\n" * 5_000, details={"report": "x" * 1_000_000, "path": "/srv/\udcff.db"}, page=None)
    )
    (payload,) = fake.alerts.open.values()
    assert len(payload.summary) == 1024
    assert "\n" not in payload.summary
    assert payload.custom_details["path"] == "/srv/?.db"


@pytest.mark.parametrize(
    ("answer", "permanent", "wait", "unsure"),
    [
        pytest.param(Answer(429, b"", {"Retry-After": "7"}), False, 7, False, id="429 with a time"),
        pytest.param(TOO_MANY, False, 30, False, id="429"),
        pytest.param(Answer(429, b"slow down"), False, 30, False, id="429 without a time"),
        pytest.param(UNAVAILABLE, False, None, True, id="503"),
        pytest.param(Answer(500), False, None, True, id="500"),
        pytest.param(Answer(408), False, None, True, id="408"),
        pytest.param(GARBAGE, False, None, True, id="garbage"),
        pytest.param(Answer(202), False, None, True, id="empty"),
        pytest.param(Answer(200, b"<html>please log in</html>"), False, None, True, id="a portal"),
        pytest.param(Answer(202, b"[]", {"Content-Encoding": "gzip"}), False, None, True, id="no gzip"),
        pytest.param(Cut(), False, None, True, id="cut"),
        pytest.param(Answer(302, b"", {"Location": "https://example.com/"}), True, None, False, id="302"),
        pytest.param(Answer(401), True, None, False, id="401"),
        pytest.param(Answer(403, b"blocked by policy"), True, None, False, id="403"),
        pytest.param(Answer(404), True, None, False, id="404"),
    ],
)
def test_a_failure_is_told_after_one_attempt(fake, answer, permanent, wait, unsure):
    fake.script(answer)
    error = failure(service(fake))
    assert len(fake.requests) == 1
    assert (error.permanent, error.retry_after_seconds, error.unsure) == (permanent, wait, unsure)
    assert "PagerDuty" in str(error)
    assert "\n" not in str(error)
    assert ROUTING_KEY[-4:] not in str(error)

    service(fake).send(trigger())
    assert [effect.what for effect in fake.alerts.effects] == ["opened"]


def test_a_hang_ends_at_the_time_limit(fake):
    fake.script(Hang(done=True))
    began = time.monotonic()
    error = failure(service(fake, timeout_seconds=0.3))
    assert time.monotonic() - began < 20
    assert (error.permanent, error.unsure) == (False, True)
    service(fake).send(trigger())
    assert [effect.what for effect in fake.alerts.effects] == ["opened", "added"]


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure(PagerDuty(ROUTING_KEY, url=f"http://127.0.0.1:{port}"))
    assert (error.permanent, error.unsure) == (False, False)
    assert f"127.0.0.1:{port}" in str(error)
    assert "refused" in str(error)


def test_an_untrusted_certificate_is_not_spoken_to(tmp_path, monkeypatch):
    with FakePagerDuty(tmp_path) as fake:
        error = failure(service(fake))
        assert (error.permanent, error.unsure) == (False, False)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert fake.requests == []

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fake.pem"))
        service(fake).send(trigger())
        assert [effect.what for effect in fake.alerts.effects] == ["opened"]


def test_the_key_does_not_travel_in_the_clear():
    error = failure(PagerDuty(ROUTING_KEY, url="http://events.pagerduty.example"))
    assert error.permanent
    assert "[pagerduty] url" in str(error)


def test_a_password_in_the_address_is_not_told(fake):
    fake.script(Answer(404))
    error = failure(PagerDuty(ROUTING_KEY, url=fake.url.replace("://", "://user:hunter2@")))
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@", f"https://user:hunter2@{'a' * 64}", "https://-.example:hunter2"]
)
def test_an_address_that_is_none_fails_without_a_secret(url):
    error = failure(PagerDuty(ROUTING_KEY, url=url))
    assert "hunter2" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("0123", "should be 32 characters"),
        ("0123456789-bcdef0123456789abcdef", "non-alphanumeric"),
        ("f" * 32, "Invalid routing key"),
    ],
)
def test_a_refused_event_says_what_pagerduty_said(fake, key, said):
    error = failure(PagerDuty(key, url=fake.url))
    assert error.permanent
    assert said in str(error)
    assert "Integration Key" in str(error)


@pytest.mark.parametrize("status", [202, 400, 401, 403, 500])
def test_the_routing_key_stays_secret(fake, caplog, status):
    caplog.set_level(logging.DEBUG)
    # The second one stands where the text is cut.
    quoted = f'not taken: {{"routing_key": "{ROUTING_KEY}"}} '.ljust(290, "-") + ROUTING_KEY
    fake.script(Answer(status, quoted.encode()))
    error = failure(service(fake))
    service(fake).send(trigger())
    told = [*traceback.format_exception(error), caplog.text, repr(service(fake))]
    for text in told:
        assert ROUTING_KEY not in text
        assert ROUTING_KEY[:8] not in text
        assert ROUTING_KEY[-8:] not in text


def test_the_shape_of_a_routing_key():
    assert looks_like_routing_key(ROUTING_KEY)
    for text in ("", "0123", ROUTING_KEY + "0", ROUTING_KEY[:-1] + "-", ROUTING_KEY[:-1] + "é", ROUTING_KEY + "\n"):
        assert not looks_like_routing_key(text)


def test_the_client_library_is_loaded_when_it_is_needed():
    """It is a quarter of the idle daemon's memory."""
    look = (
        "import sys, scpln_backup.observers.channels.pagerduty as module; "
        "module.PagerDuty('0123'); print({'pagerduty', 'httpx2'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", look], text=True) == "set()\n"


# From the outbox to PagerDuty


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


def test_an_outage_between_the_outbox_and_pagerduty(fake, tmp_path):
    """What fails is tried again, what is over by then calls nobody, what lasts calls once, and ends once."""
    clock = Clock()
    catalog = Catalog.open(tmp_path / "catalog.db", UTC, NOW)
    catalog.register_channels(["pagerduty"])

    def deliver(seconds=10):
        courier_channel = channel(service(fake, timeout_seconds=seconds))
        Courier(catalog, courier_channel, Lock(tmp_path / "lock", "test"), clock).deliver()

    def happens(happening, *coming, seconds=10):
        fake.script(*coming)
        clock.now += HOUR
        catalog.keep_event(happening, clock.now)
        deliver(seconds)

    def failed(hour):
        return RunFinished(record=RunRecord(trigger=Trigger.SCHEDULE, started_at=NOW + hour * HOUR))

    def succeeded(hour):
        return RunFinished(
            record=RunRecord(trigger=Trigger.SCHEDULE, started_at=NOW + hour * HOUR, outcome=Outcome.SUCCESS)
        )

    happens(failed(1), TOO_MANY)
    happens(succeeded(2))
    assert fake.alerts.effects == []
    assert catalog.channel("pagerduty").waiting == 0

    happens(failed(3), Hang(done=True), seconds=0.3)
    happens(OVERDUE, UNAVAILABLE)
    happens(failed(5))
    happens(succeeded(6), Cut(done=True))
    clock.now += HOUR
    deliver()
    assert fake.alerts.effects == [
        Effect("opened", KEY + "run"),  # its answer hung
        Effect("added", KEY + "run"),  # the same letter again
        Effect("opened", KEY + "overdue"),
        Effect("added", KEY + "run"),
        Effect("resolved", KEY + "run"),  # its answer was cut
        Effect("dropped", KEY + "run"),  # the same letter again
        Effect("resolved", KEY + "overdue"),
    ]
    assert catalog.causes("pagerduty") == {}
    assert catalog.channel("pagerduty").waiting == 0


# Beside Alertmanager


ALERTMANAGER = shutil.which("prometheus-alertmanager")


@contextmanager
def alertmanager(folder, url):
    """Its address. The routes are those of a host that wants to hear at once."""
    (folder / "key").write_text(ROUTING_KEY)
    configuration = {
        "route": {"receiver": "call", "group_wait": "10ms", "group_interval": "200ms", "repeat_interval": "1h"},
        "receivers": [
            {
                "name": "call",
                "pagerduty_configs": [{"routing_key_file": str(folder / "key"), "url": f"{url}/v2/enqueue"}],
            }
        ],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(configuration))  # YAML as well
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        ALERTMANAGER,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while not ready(address):
                assert time.monotonic() < deadline, (folder / "alertmanager.log").read_text()
                time.sleep(0.02)
            yield address
        finally:
            process.kill()
            process.wait(20)


def ready(address):
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def alert(address, **changes):
    """As Prometheus tells Alertmanager."""
    document = [{"labels": {"alertname": "ScplnBackupOverdue"}, "annotations": {"summary": "No backup"}, **changes}]
    request = urllib.request.Request(
        f"http://{address}/api/v2/alerts",
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5):
        pass


@pytest.mark.skipif(ALERTMANAGER is None, reason="prometheus-alertmanager is not installed")
def test_our_post_has_the_shape_of_alertmanagers(fake, tmp_path):
    with alertmanager(tmp_path, fake.url) as address:
        alert(address)
        fake.wait_for(1)
        alert(address, endsAt=datetime.now(UTC).isoformat())
        fake.wait_for(2)
    service(fake).send(trigger())
    service(fake).send(Resolve(dedup_key=KEY + "run"))
    assert [effect.what for effect in fake.alerts.effects] == ["opened", "resolved"] * 2

    theirs, their_end, ours, our_end = fake.requests
    assert (ours.method, ours.path, ours.query) == (theirs.method, theirs.path, theirs.query)
    assert ours.headers.get_content_type() == theirs.headers.get_content_type()
    assert shape(theirs.json()) <= shape(ours.json())
    assert shape(our_end.json()) <= shape(their_end.json())
    assert our_end.json()["event_action"] == their_end.json()["event_action"]


def shape(document, at=""):
    """Each field with its type; what is in custom_details is everyone's own."""
    found = set()
    for name, value in document.items():
        found.add((f"{at}{name}", type(value).__name__))
        if isinstance(value, dict) and name != "custom_details":
            found |= shape(value, f"{at}{name}.")
    return found
