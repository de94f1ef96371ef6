"""Jira: one open ticket for each cause, whatever the service does to a request."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import DeliveryError
from scpln_backup.events import (
    ArtifactVerified,
    BackupOverdue,
    DrillFinished,
    Event,
    ReviewMade,
    RunFinished,
    TestMessage,
)
from scpln_backup.model import DrillRecord, Outcome, RunRecord, Severity, Topic, Trigger
from scpln_backup.notify.jira import LABEL, SUMMARY_LIMIT, TEXT_LIMIT, Jira, mark
from scpln_backup.observers.channels.jira import Close, Comment, JiraChannel, Open, escaped, wiki
from scpln_backup.observers.message import Message
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.outbox import Cause, Entry
from support.fake_jira import TOKEN, USER, FakeJira
from support.fakes import GARBAGE, TOO_MANY, UNAVAILABLE, Answer, Cut, Hang

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TOPICS = frozenset({Topic.RUN, Topic.OVERDUE, Topic.ARTIFACT, Topic.DRILL, Topic.REVIEW})
NO_JIRA_404 = Answer(404, b"<html>nothing here</html>", {"Content-Type": "text/html"})


def client(fake: FakeJira, **changes) -> Jira:
    known = {
        "url": fake.url,
        "token": TOKEN,
        "user": USER if fake.cloud else "",
        "project": "OPS",
        "issue_type": "Task",
        "timeout_seconds": 5,
        "looks_seconds": (0, 0, 0),
    }
    return Jira(**(known | changes))


@pytest.fixture(params=[False, True], ids=["data-center", "cloud"])
def fake(request):
    with FakeJira(cloud=request.param) as running:
        yield running


@pytest.fixture
def jira(fake):
    return client(fake)


def posts(fake: FakeJira) -> list[str]:
    return [request.path for request in fake.requests if request.method == "POST"]


# The client


def test_a_ticket_is_made_with_one_request(fake, jira):
    assert jira.create("Backup failed", "h3. Why", ["scpln-backup.production"], "run 7") == "OPS-1"
    made = fake.tickets["OPS-1"]
    assert (made.summary, made.description, made.type) == ("Backup failed", "h3. Why", "Task")
    assert made.labels == [LABEL, "scpln-backup.production", f"{LABEL}-{mark('run 7')}"]
    assert len(fake.requests) == 1


def test_texts_that_are_too_long_are_cut_not_refused(fake, jira):
    ticket = jira.create("long\nword " * 100, "日本語😀" * 20_000, [], "a")
    assert jira.comment(ticket, "x" * 40_000, "b", doubtful=False)
    made = fake.tickets[ticket]
    assert len(made.summary) == SUMMARY_LIMIT
    assert made.summary.startswith("long word long")
    assert len(made.description.encode("utf-16-le")) // 2 in (TEXT_LIMIT - 1, TEXT_LIMIT)
    assert made.comments[0].endswith(f"…\n----\n{LABEL}: {mark('b')}")


def test_what_a_database_may_refuse_is_left_out(fake, jira):
    jira.create("a\0b", "one\x1b[31m\ntwo\udc80", [], "a")
    assert fake.tickets["OPS-1"].summary == "ab"
    assert fake.tickets["OPS-1"].description == "one[31m\ntwo?"


def test_a_comment_that_may_be_there_is_looked_for(fake, jira):
    jira.create("s", "d", [], "a")
    assert jira.comment("OPS-1", "again", "b", doubtful=True)
    for number in range(120):
        fake.tickets["OPS-1"].comments.insert(0, f"older {number}")
    assert jira.comment("OPS-1", "again", "b", doubtful=True)
    assert jira.comment("OPS-1", "another", "c", doubtful=True)
    assert [text.partition("\n")[0] for text in fake.tickets["OPS-1"].comments[120:]] == ["again", "another"]


def test_a_ticket_goes_through_the_transition_of_that_name_once(fake, jira):
    jira.create("s", "d", [], "a")
    jira.transition("OPS-1", "dOnE")
    assert fake.tickets["OPS-1"].status == "Done"
    before = len(fake.requests)
    jira.transition("OPS-1", "Reopen")
    assert fake.tickets["OPS-1"].done
    assert len(fake.requests) == before + 1


def test_a_workflow_without_that_transition_is_logged_and_no_error(fake, jira, caplog):
    jira.create("s", "d", [], "a")
    jira.transition("OPS-1", "Archive")
    assert not fake.tickets["OPS-1"].done
    assert "OPS-1 stays open: no transition 'Archive' from here, only: Start, Done" in caplog.text
    assert "[jira] done_transition" in caplog.text


def test_a_transition_that_asks_for_more_is_logged_and_no_error(fake, jira, caplog):
    jira.create("s", "d", [], "a")
    fake.required = {"resolution": "Resolution is required."}
    jira.transition("OPS-1", "Done")
    assert "OPS-1 stays open" in caplog.text
    assert "field resolution: Resolution is required." in caplog.text


@pytest.mark.parametrize("answer", [TOO_MANY, Answer.json({"errorMessages": ["not you"]}, 403)])
def test_a_transition_that_fails_leaves_what_came_before_it_in_doubt(fake, jira, answer):
    jira.create("s", "d", [], "a")
    fake.posts.append(answer)
    with pytest.raises(DeliveryError) as caught:
        jira.transition("OPS-1", "Done")
    assert caught.value.unsure


def test_a_ticket_that_is_gone_takes_no_comment(fake, jira):
    assert not jira.comment("OPS-9", "again", "a", doubtful=False)
    assert not jira.comment("OPS-9", "again", "a", doubtful=True)


def test_a_closed_ticket_takes_comments_unless_it_is_closed_for_good(fake, jira):
    jira.create("s", "d", [], "a")
    fake.move("OPS-1", "Done")
    assert jira.comment("OPS-1", "again", "b", doubtful=False)
    fake.closed_is_final = True
    assert not jira.comment("OPS-1", "again", "c", doubtful=False)


def test_an_open_ticket_that_may_not_be_commented_is_an_error(fake, jira):
    jira.create("s", "d", [], "a")
    fake.permissions["ADD_COMMENTS"] = False
    with pytest.raises(
        DeliveryError, match="let the token's account create and comment issues in project OPS"
    ) as caught:
        jira.comment("OPS-1", "again", "b", doubtful=False)
    assert caught.value.permanent


@pytest.mark.parametrize("lag", [0, 2])
def test_a_ticket_is_found_by_the_effect_that_made_it(fake, jira, lag):
    fake.lag = lag
    jira.create("s", "d", [], "a")
    jira.create("s", "d", [], "b")
    assert jira.created("a") == "OPS-1"
    assert jira.created("c") is None


def test_only_an_open_ticket_is_found_by_its_cause(fake, jira):
    jira.create("s", "d", ["cause"], "a")
    assert jira.open_ticket("cause") == "OPS-1"
    fake.lag = 5
    fake.move("OPS-1", "Done")  # the index does not know yet
    assert jira.open_ticket("cause") is None
    fake.move("OPS-1", "To Do")
    del fake.tickets["OPS-1"]
    assert jira.open_ticket("cause") is None


def expired(fake: FakeJira) -> None:
    fake.expired = True


def not_allowed(fake: FakeJira) -> None:
    fake.permissions["CREATE_ISSUES"] = False


def other_types(fake: FakeJira) -> None:
    fake.types = ["Incident"]


def more_fields(fake: FakeJira) -> None:
    fake.required = {"customfield_10010": "Team is required."}


def no_labels(fake: FakeJira) -> None:
    fake.screen = ("project", "issuetype", "summary", "description")


def quoting(fake: FakeJira) -> None:
    fake.script(Answer.json({"errorMessages": [f"what is\n{TOKEN}?"], "errors": {}}, 400))


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (expired, r"does not accept the token \(401\): put one that is valid into \[jira\] token_file"),
        (not_allowed, r"\(403\): You do not have permission .* create and comment issues in project OPS"),
        (other_types, r"field issuetype: The issue type selected is invalid.; set \[jira\] issue_type"),
        (more_fields, r"field customfield_10010: Team is required.; .* or \[jira\] issue_type"),
        (no_labels, r"field labels: .* put Labels on the project's create screen"),
        (quoting, r"refuses \(400\): what is \(token\)\?$"),
        (lambda fake: fake.script(NO_JIRA_404), r"answered 404, and not as Jira does; check \[jira\] url"),
    ],
)
def test_a_refusal_says_what_to_do(fake, jira, trouble, said):
    trouble(fake)
    with pytest.raises(DeliveryError, match=said) as caught:
        jira.create("s", "d", [], "a")
    assert caught.value.permanent
    assert not caught.value.unsure
    assert fake.tickets == {}


@pytest.mark.parametrize(
    ("scripted", "wait", "unsure"),
    [
        (TOO_MANY, 30, False),
        (Answer(429, b"[]", {"Retry-After": "Wed, 25 Nov 2026 10:00:00 GMT"}), None, False),
        (Answer(503, b"", {"Retry-After": "7"}), 7, True),
        (UNAVAILABLE, None, True),
        (Answer(500, b"7"), None, True),
        (GARBAGE, None, True),
        (Answer.json({"id": "1"}, 201), None, True),
        (Answer.json(["OPS-1"], 201), None, True),
        (Answer.json(None, 201), None, True),
        (Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"}), None, True),
        (Cut(), None, True),
        (Hang(), None, True),
    ],
)
def test_what_passes_is_tried_again(fake, scripted, wait, unsure):
    fake.script(scripted)
    with pytest.raises(DeliveryError) as caught:
        client(fake, timeout_seconds=0.3 if isinstance(scripted, Hang) else 5).create("s", "d", [], "a")
    error = caught.value
    assert (error.permanent, error.retry_after_seconds, error.unsure) == (False, wait, unsure)
    assert "\n" not in str(error)


def test_a_question_without_an_answer_leaves_no_doubt(fake, jira):
    fake.script(Cut())
    with pytest.raises(DeliveryError) as caught:
        jira.open_ticket("cause")
    assert not caught.value.unsure


def test_nobody_there_is_surely_not_there():
    with FakeJira() as fake:
        jira = client(fake)
    with pytest.raises(DeliveryError, match=r"Jira at localhost: no answer: .*refused") as caught:
        jira.create("s", "d", [], "a")
    assert not caught.value.unsure
    assert not caught.value.permanent


def test_tls_is_checked_and_trusts_what_the_host_trusts(tmp_path, monkeypatch):
    with FakeJira(certificate=tmp_path) as fake:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(DeliveryError, match="certificate verify failed") as caught:
            client(fake).create("s", "d", [], "a")
        assert not caught.value.unsure
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fake.pem"))
        assert client(fake).create("s", "d", [], "a") == "OPS-1"


def test_the_token_is_nowhere_but_in_the_header(fake, caplog):
    caplog.set_level(logging.DEBUG)
    quoting = Answer(200, TOKEN.encode())
    asks = [lambda jira: jira.create("s", "d", [], "a"), lambda jira: jira.created("a")]
    for scripted in (GARBAGE, TOO_MANY, UNAVAILABLE, Cut(), Answer(400, TOKEN.encode()), quoting):
        for ask in asks:
            fake.script(scripted)
            with pytest.raises(DeliveryError) as caught:
                ask(client(fake))
            assert TOKEN not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caplog.text
    assert TOKEN not in caplog.text
    assert not any(TOKEN in request.path or TOKEN.encode() in request.body for request in fake.requests)


def test_check_asks_and_changes_nothing(fake, jira):
    said = jira.check(transitions=True)
    assert said.startswith("Jira at localhost: as Backup Bot, project OPS (Operations), type Task")
    assert "plain http" in said
    assert posts(fake) == []


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (expired, "token_file"),
        (other_types, r"project OPS has no issue type 'Task', only: Incident; check \[jira\] issue_type"),
        (not_allowed, "in project OPS the token's account may not create issues; give it that permission"),
        (lambda fake: fake.permissions.update(TRANSITION_ISSUES=False), "may not transition issues"),
    ],
)
def test_check_says_what_would_fail(fake, jira, trouble, said):
    trouble(fake)
    with pytest.raises(DeliveryError, match=said):
        jira.check(transitions=True)


def test_check_does_not_ask_for_a_permission_that_is_not_needed(fake, jira):
    fake.permissions["TRANSITION_ISSUES"] = False
    assert jira.check(transitions=False)


@pytest.mark.parametrize("ask", [lambda jira: jira.check(transitions=False), lambda jira: jira.open_ticket("cause")])
def test_a_project_that_is_not_there_is_named(fake, ask):
    with pytest.raises(DeliveryError, match=r"NONE.*check \[jira\] project") as caught:
        ask(client(fake, project="NONE"))
    assert caught.value.permanent


# The texts


def test_a_message_becomes_wiki_markup():
    message = Message(
        headline="scpln (production): backup failed",
        severity=Severity.CRITICAL,
        sentences=("Mend it, then `scpln-backup backup --wait`.", "Two\nlines."),
        facts=(("Began", "02:30"), ("Page", "http://127.0.0.1:9817/"), ("File", "`/var/x_y.md`")),
        listing=" 1.1K 2026-11-22 02:30 a*b.gz",
    )
    assert wiki(message, ["one", "two"]) == (
        "h3. scpln \\(production\\): backup failed\n\n"
        "Mend it, then {{scpln\\-backup backup \\-\\-wait}}.\n\n"
        "Two lines.\n\n"
        "* Began: 02:30\n* Page: http://127.0.0.1:9817/\n* File: {{/var/x\\_y.md}}\n\n"
        "* one\n* two\n\n"
        "{noformat}\n 1.1K 2026-11-22 02:30 a*b.gz\n{noformat}"
    )


@given(st.text(max_size=80) | st.text("\\{}[]|*_-+^~!#?@%()h1.bq `\n", max_size=80))
@settings(deadline=None, max_examples=300)
def test_no_text_is_taken_for_markup(text):
    shown = escaped(text)
    # The rule of the renderer: a backslash that follows no other one, and what it escapes.
    left = re.sub(r"(?<!\\)\\[-#*_+?^~|%{}\[\]()!@]", "", shown).replace("&#92;", "")
    assert not re.search(r"[-#*_+?^~|%{}\[\]()!@\\\n]", left)
    assert not re.match(r"(h[1-6]|bq)\.", shown)
    again = re.sub(r"\\([-#*_+?^~|%{}\[\]()!@])", r"\1", shown).replace("&#92;", "\\").replace("\u200b", "")
    assert again == " ".join(text.split()).replace("\u200b", "")


@pytest.mark.parametrize("text", ["{noformat}*out*{noformat}", "{NoFormat:x} h1. out", "{" * 9_000 + "noformat}"])
def test_a_block_ends_where_it_ends(text):
    shown = wiki(Message(headline="h", severity=Severity.INFO, listing=text, document=text))
    assert len(re.findall(r"\{noformat", shown, re.IGNORECASE)) == 4


def test_the_longest_message_is_not_cut_in_the_middle_of_a_block(fake, jira):
    message = Message(headline="*" * 9_999, severity=Severity.INFO, listing="a" * 99_999, document="b" * 99_999)
    jira.create("s", wiki(message, ["!" * 999] * 99), [], "a")
    assert fake.tickets["OPS-1"].description.endswith("b…\n{noformat}")


# The channel


def word(entry: Entry, cause: Cause | None) -> Message:
    """What the tests look for: who is told of, and what was told of the cause before."""
    match entry.event:
        case RunFinished(record=record):
            what = f"{record.outcome} <{record.started_at.astimezone(UTC):%d.%H:%M}>"
        case ReviewMade(unticketed=runs, path=path):
            what = " ".join([path, *(f"<{at.astimezone(UTC):%d.%H:%M}>" for at in runs)])
        case event:
            what = type(event).__name__
    told = () if cause is None else (f"told {cause.count} times",)
    return Message(headline=f"{what}, entry {entry.id}", severity=Severity.INFO, sentences=told, document="all of it")


def run(outcome: Outcome, at: datetime, **changes) -> RunFinished:
    record = RunRecord(trigger=Trigger.SCHEDULE, started_at=at, finished_at=at, outcome=outcome, **changes)
    return RunFinished(record=record)


def channel(fake: FakeJira, ticketed: Callable[[datetime], bool] = lambda at: False, **changes) -> JiraChannel:
    known = {
        "topics": TOPICS,
        "level": Severity.WARNING,
        "transition": "Done",
        "database": "scpln",
        "environment": "production",
        "word": word,
        "ticketed": ticketed,
    }
    return JiraChannel(client(fake), **(known | changes))


class Killed(Exception):  # noqa: N818 - stands for a process that is no more
    """The process died after the letter was sent."""


@dataclass
class House:
    """A catalog, a channel, and the loop that takes one to the other."""

    fake: FakeJira
    catalog: Catalog
    channel: JiraChannel
    at: datetime = NOW
    limit: int = 500
    steps: list = field(default_factory=list)

    def happens(self, event: Event, hours: float = 1) -> int:
        self.at += hours * HOUR
        assert self.catalog.keep_event(event, self.at)
        return self.catalog.last_entry_id()

    def fails(self) -> int:
        return self.happens(run(Outcome.FAILED, self.at))

    def succeeds(self) -> int:
        return self.happens(run(Outcome.SUCCESS, self.at))

    def deliver(self, *, killed: bool = False) -> None:
        """All that waits; raises DeliveryError, and Killed after the first letter with `killed`."""
        while True:
            state = self.catalog.channel("jira")
            waiting = self.catalog.waiting(state, self.limit)
            if not waiting:
                if state.begun_upto is None:
                    return
                self.catalog.forget_delivery("jira")
                continue
            step = self.channel.next_step(waiting, self.catalog.causes("jira"))
            self.steps.append(step)
            if step.letter is None:
                self.catalog.settle("jira", step.settles)
                continue
            doubtful = self.catalog.begin_delivery("jira", step.key, waiting[-1].id)
            try:
                ref = self.channel.send(step.letter, step.key, doubtful=doubtful)
            except DeliveryError as error:
                self.catalog.fail_delivery(
                    "jira", str(error), at=self.at, retry_at=self.at, arrived_surely_not=not error.unsure
                )
                raise
            if killed:
                raise Killed
            self.catalog.settle(
                "jira", step.settles, at=self.at, opens=step.opens, closes=step.closes, about=step.about, ref=ref
            )

    def refs(self, *entries: int) -> list[list[str]]:
        found = self.catalog.refs("jira", entries)
        return [found.get(entry, []) for entry in entries]

    @property
    def open(self) -> list[str]:
        return [key for key, ticket in self.fake.tickets.items() if not ticket.done]


@pytest.fixture
def house(fake, tmp_path):
    catalog = Catalog.open(tmp_path / "catalog.db", TOKYO, NOW)
    catalog.register_channels(["jira"])
    return House(fake, catalog, channel(fake))


def test_the_life_of_a_ticket(house):
    first = house.fails()
    house.deliver()
    assert house.open == ["OPS-1"]
    again = house.fails()
    house.deliver()
    good = house.succeeds()
    house.deliver()
    assert house.open == []
    anew = house.fails()
    house.deliver()
    assert house.open == ["OPS-2"]
    assert house.refs(first, again, good, anew) == [["OPS-1"], ["OPS-1"], ["OPS-1"], ["OPS-2"]]
    ticket = house.fake.tickets["OPS-1"]
    assert ticket.summary == f"failed <21.17:30>, entry {first}"
    assert [comment.partition("\n")[0] for comment in ticket.comments] == [
        f"h3. failed <21.18:30\\>, entry {again}".replace("\\>", ">"),
        f"h3. success <21.19:30>, entry {good}",
    ]
    assert "told 1 times" in ticket.comments[0]
    assert "told 2 times" in ticket.comments[1]
    assert "scpln-backup.production.scpln.run" in ticket.labels


def test_what_is_no_trouble_makes_no_ticket(house):
    house.succeeds()
    house.happens(DrillFinished(record=DrillRecord(trigger=Trigger.CLI, started_at=NOW, outcome=Outcome.SUCCESS)))
    house.happens(ArtifactVerified(name="a", error=None))
    house.deliver()
    assert house.fake.requests == []


def test_each_cause_has_a_ticket_of_its_own(house):
    house.fails()
    house.happens(ArtifactVerified(name="a b", error="torn"))
    house.happens(ArtifactVerified(name="c", error="torn"))
    house.deliver()
    house.happens(ArtifactVerified(name="c", error=None))
    house.deliver()
    assert house.open == ["OPS-1", "OPS-2"]
    assert "scpln-backup.production.scpln.artifact-a-b" in house.fake.tickets["OPS-2"].labels


def test_failures_that_waited_together_are_one_letter(house):
    failed = [house.fails() for _ in range(3)]
    house.happens(ArtifactVerified(name="a", error=None))
    failed.append(house.fails())
    house.deliver()
    assert posts(house.fake) == ["/rest/api/2/issue"]
    assert house.refs(*failed) == [["OPS-1"]] * 4
    text = house.fake.tickets["OPS-1"].description
    assert "told 3 times" in text
    assert "* 2026\\-11\\-22 03:30 JST … 2026\\-11\\-22 07:30 JST: 4\n" in text
    assert all(f", entry {entry}" in text for entry in failed)


def test_a_flood_is_told_in_a_few_lines(house):
    failed = [house.fails() for _ in range(100)]
    house.deliver()
    text = house.fake.tickets["OPS-1"].description
    assert "* … \\(70\\)" in text
    assert text.count("JST: failed") == 30
    assert f", entry {failed[-1]}" in text
    assert house.refs(failed[50]) == [["OPS-1"]]


def test_failures_that_waited_together_while_a_ticket_is_open_are_one_comment(house):
    house.fails()
    house.deliver()
    failed = [house.fails() for _ in range(3)]
    house.deliver()
    ticket = house.fake.tickets["OPS-1"]
    assert len(ticket.comments) == 1
    assert "told 3 times" in ticket.comments[0]
    assert house.refs(*failed) == [["OPS-1"]] * 3


def test_a_trouble_that_came_and_went_unheard_gets_a_ticket_that_is_over(house):
    failed = house.fails()
    house.succeeds()
    house.deliver()
    assert [type(step.letter) for step in house.steps] == [Open, Close]
    assert house.fake.tickets["OPS-1"].done
    assert house.refs(failed) == [["OPS-1"]]


def test_what_lies_between_two_failures_is_not_folded_away(house):
    house.fails()
    house.succeeds()
    house.fails()
    house.happens(overdue(NOW))
    house.fails()
    house.happens(review("/state/a.md", NOW))
    house.fails()
    house.happens(run(Outcome.DEGRADED, house.at))
    house.deliver()
    letters = [type(step.letter) for step in house.steps]
    assert letters == [Open, Close, Open, Open, Comment, Open, Comment, Close, Comment]
    assert house.open == ["OPS-2", "OPS-4"]


def overdue(at: datetime) -> BackupOverdue:
    return BackupOverdue(since=at, deadline=at + DAY, hours=24)


def test_a_success_closes_every_ticket_that_it_is_the_end_of(house):
    house.fails()
    house.happens(overdue(NOW))
    house.deliver()
    assert house.open == ["OPS-1", "OPS-2"]
    good = house.succeeds()
    with pytest.raises(Killed):
        house.deliver(killed=True)  # after the first of its two letters
    house.deliver()
    assert house.open == []
    assert [len(ticket.comments) for ticket in house.fake.tickets.values()] == [1, 1]
    assert house.catalog.channel("jira").settled == good


def test_a_degraded_run_ends_one_trouble_and_begins_another(house):
    house.happens(overdue(NOW))
    house.deliver()
    degraded = house.happens(run(Outcome.DEGRADED, house.at))
    house.deliver()
    assert house.open == ["OPS-2"]
    assert house.refs(degraded) == [["OPS-2"]]


def test_without_a_transition_people_close_and_until_then_it_is_the_same_ticket(house):
    house.channel = channel(house.fake, transition="")
    house.fails()
    house.succeeds()
    house.deliver()
    assert house.open == ["OPS-1"]
    house.fails()
    house.deliver()
    assert house.open == ["OPS-1"]
    assert len(house.fake.tickets["OPS-1"].comments) == 2


def test_a_ticket_that_people_have_closed_is_told_all_the_same(house):
    house.fails()
    house.deliver()
    house.fake.move("OPS-1", "Done")
    house.fails()
    house.deliver()
    house.succeeds()
    house.deliver()
    ticket = house.fake.tickets["OPS-1"]
    assert (ticket.status, len(ticket.comments)) == ("Done", 2)
    assert list(house.fake.tickets) == ["OPS-1"]


def test_a_ticket_that_people_have_deleted_is_made_anew(house):
    house.fails()
    house.deliver()
    del house.fake.tickets["OPS-1"]
    failed = house.fails()
    house.deliver()
    house.fails()
    house.deliver()
    assert house.refs(failed) == [["OPS-2"]]
    assert house.open == ["OPS-2"]
    assert len(house.fake.tickets["OPS-2"].comments) == 1


def test_nobody_misses_the_end_of_a_deleted_ticket(house):
    house.fails()
    house.deliver()
    house.fake.tickets.clear()
    house.succeeds()
    house.deliver()
    assert house.fake.tickets == {}
    assert house.catalog.causes("jira") == {}


def test_an_answer_of_something_else_than_jira_is_not_the_end_of_a_ticket(house):
    house.fails()
    house.deliver()
    house.succeeds()
    house.fake.script(NO_JIRA_404)
    with pytest.raises(DeliveryError, match="not as Jira does"):
        house.deliver()
    house.deliver()
    assert house.fake.tickets["OPS-1"].done
    assert len(house.fake.tickets["OPS-1"].comments) == 1


def test_an_open_ticket_is_found_again_when_the_catalog_is_lost(house, tmp_path):
    house.fails()
    house.deliver()
    house.catalog = Catalog.open(tmp_path / "another.db", TOKYO, NOW)
    house.catalog.register_channels(["jira"])
    house.fails()
    house.deliver()
    house.succeeds()
    house.deliver()
    assert list(house.fake.tickets) == ["OPS-1"]
    assert house.fake.tickets["OPS-1"].done


def test_an_effect_of_a_lost_catalog_is_not_taken_for_one_of_the_new(house, tmp_path):
    house.fails()
    house.deliver()
    house.fake.move("OPS-1", "Done")
    house.catalog = Catalog.open(tmp_path / "another.db", TOKYO, NOW)
    house.catalog.register_channels(["jira"])
    failed = house.fails()
    house.fake.posts.append(Cut())
    with pytest.raises(DeliveryError):
        house.deliver()
    house.deliver()
    assert house.refs(failed) == [["OPS-2"]]


def test_another_environment_has_tickets_of_its_own(house, tmp_path):
    house.fails()
    house.deliver()
    other = Catalog.open(tmp_path / "another.db", TOKYO, NOW)
    other.register_channels(["jira"])
    staging = House(house.fake, other, channel(house.fake, environment="staging"))
    staging.fails()
    staging.deliver()
    assert house.open == ["OPS-1", "OPS-2"]


@pytest.mark.parametrize("scripted", [Cut(done=True), Answer(502, b"", done=True), Answer(201, b"{", done=True)])
@pytest.mark.parametrize("lag", [0, 2])
def test_a_ticket_whose_making_got_no_answer_is_not_made_twice(house, scripted, lag):
    house.fake.lag = lag
    failed = house.fails()
    house.fake.posts.append(scripted)
    with pytest.raises(DeliveryError):
        house.deliver()
    house.fails()  # meanwhile
    house.deliver()
    assert house.refs(failed) == [["OPS-1"]]
    assert list(house.fake.tickets) == ["OPS-1"]
    assert len(house.fake.tickets["OPS-1"].comments) == 1


def test_a_comment_whose_making_got_no_answer_is_not_made_twice(house):
    house.fails()
    house.deliver()
    house.succeeds()
    house.fake.posts.append(Cut(done=True))
    with pytest.raises(DeliveryError):
        house.deliver()
    house.deliver()
    ticket = house.fake.tickets["OPS-1"]
    assert (ticket.status, len(ticket.comments)) == ("Done", 1)


def test_doubt_outlasts_an_attempt_that_surely_failed(house):
    house.fails()
    house.fake.posts.append(Cut(done=True))
    with pytest.raises(DeliveryError):
        house.deliver()
    house.fake.expired = True
    with pytest.raises(DeliveryError, match="token_file") as caught:
        house.deliver()
    assert caught.value.unsure
    house.fake.expired = False
    house.deliver()
    assert list(house.fake.tickets) == ["OPS-1"]


def test_a_level_keeps_lesser_trouble_out(house):
    house.channel = channel(house.fake, level=Severity.CRITICAL)
    house.happens(run(Outcome.DEGRADED, house.at))
    house.happens(run(Outcome.FAILED, house.at, interrupted=True))
    house.deliver()
    assert house.fake.requests == []
    house.fails()
    house.deliver()
    assert house.open == ["OPS-1"]


def review(path: str, *unticketed: datetime, month: str = "2026-10") -> ReviewMade:
    return ReviewMade(month=month, path=path, text="# Review", unticketed=unticketed)


def test_a_review_makes_one_ticket_for_what_has_none(house):
    reviewed = house.happens(review("/state/2026-10.md", NOW - DAY, NOW))
    house.deliver()
    assert posts(house.fake) == ["/rest/api/2/issue"]
    assert house.refs(reviewed) == [["OPS-1"]]
    ticket = house.fake.tickets["OPS-1"]
    assert ticket.summary.startswith("/state/2026-10.md <20.17:30> <21.17:30>")
    assert "all of it" not in ticket.description
    assert house.catalog.causes("jira") == {}


def test_a_review_that_misses_nothing_makes_no_ticket(house):
    house.happens(review("/state/2026-10.md"))
    house.channel = channel(house.fake, topics=frozenset({Topic.RUN}))
    house.happens(review("/state/2026-11.md", NOW, month="2026-11"))
    house.deliver()
    assert house.fake.requests == []


def test_what_got_a_ticket_since_the_review_was_made_gets_no_other(house):
    late = NOW - 2 * DAY
    house.channel = channel(house.fake, ticketed=lambda at: at == late)
    house.happens(review("/state/a.md", late))
    house.deliver()
    assert house.fake.requests == []
    house.happens(review("/state/b.md", late, NOW - DAY, month="2026-11"))
    house.deliver()
    assert "<19.17:30>" not in house.fake.tickets["OPS-1"].text
    assert "<20.17:30>" in house.fake.tickets["OPS-1"].text


def test_a_test_makes_a_ticket_and_closes_it(fake):
    jira = channel(fake, topics=frozenset(Topic), level=Severity.INFO)
    entry = Entry(id=0, at=NOW, actor="root", event=TestMessage(user="root"))
    step = jira.next_step([entry], {})
    ticket = jira.send(step.letter, step.key, doubtful=False)
    assert not fake.tickets[ticket].done
    entry = Entry(id=0, at=NOW, actor="root", event=TestMessage(user="root", over=True))
    step = jira.next_step([entry], dict.fromkeys(step.opens, Cause(since=NOW, ref=ticket)))
    jira.send(step.letter, step.key, doubtful=False)
    assert fake.tickets[ticket].done


def test_entries_that_could_not_be_kept_share_a_ticket_too(fake):
    jira = channel(fake)
    for hour in range(3):
        entry = Entry(id=0, at=NOW + hour * HOUR, actor="root", event=run(Outcome.FAILED, NOW + hour * HOUR))
        step = jira.next_step([entry], {})
        jira.send(step.letter, step.key, doubtful=False)
    assert list(fake.tickets) == ["OPS-1"]
    assert len(fake.tickets["OPS-1"].comments) == 2


def test_a_cause_without_a_ticket_is_as_if_never_told(fake):
    entry = Entry(id=1, at=NOW, actor="root", event=run(Outcome.SUCCESS, NOW))
    step = channel(fake).next_step([entry], {"run": Cause(since=NOW)})
    assert (step.letter, step.settles) == (None, 1)
    entry = Entry(id=1, at=NOW, actor="root", event=run(Outcome.FAILED, NOW))
    assert isinstance(channel(fake).next_step([entry], {"run": Cause(since=NOW)}).letter, Open)
    assert isinstance(channel(fake).next_step([entry], {"run": Cause(since=NOW, ref="OPS-1")}).letter, Comment)


# Any sequence, any trouble

KINDS = ["failed", "success", "degraded", "suspect", "interrupted", "overdue", "bad", "sound", "drill", "review"]
BEGINS = {kind: {"run"} for kind in ("failed", "degraded", "suspect", "interrupted")}
BEGINS |= {"overdue": {"overdue"}, "bad": {"artifact a.db.gz"}, "drill": {"drill"}}
ENDS = {"success": {"run", "overdue"}, "degraded": {"overdue"}, "sound": {"artifact a.db.gz"}}
TROUBLES = {
    "lost": Cut(),
    "cut": Cut(done=True),
    "down": UNAVAILABLE,
    "later": TOO_MANY,
    "broken": Answer(201, b"{", done=True),
}
happenings = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(["wait", "deliver", "killed"]),
        st.lists(st.sampled_from([None, *TROUBLES]), max_size=3),
    ),
    min_size=1,
    max_size=14,
)


def event_of(kind: str, house: House, failed: Sequence[datetime]) -> Event:
    at = house.at
    match kind:
        case "overdue":
            return overdue(at)
        case "bad" | "sound":
            return ArtifactVerified(name="a.db.gz", error="torn" if kind == "bad" else None)
        case "drill":
            return DrillFinished(record=DrillRecord(trigger=Trigger.CLI, started_at=at))
        case "review":
            return review("/state/review.md", *failed, month=at.isoformat())
        case "interrupted":
            return run(Outcome.FAILED, at, interrupted=True)
    return run(Outcome(kind), at)


@given(
    happenings=happenings,
    before=st.integers(0, 2),
    limit=st.integers(1, 6),
    lag=st.integers(0, 2),
    cloud=st.booleans(),
)
@settings(deadline=None, max_examples=20)
def test_one_open_ticket_for_a_cause_and_one_ticket_for_a_failed_run(happenings, before, limit, lag, cloud):
    failed: dict[datetime, int] = {}
    reviews: dict[int, ReviewMade] = {}
    lasting: set[str] = set()

    def ticketed(at: datetime) -> bool:
        ids = [failed[at], *(entry for entry, event in reviews.items() if at in event.unticketed)]
        return any(house.refs(*ids))

    with FakeJira(cloud=cloud, lag=lag) as fake, TemporaryDirectory() as folder:
        catalog = Catalog.open(Path(folder) / "catalog.db", TOKYO, NOW)
        house = House(fake, catalog, channel(fake, ticketed), limit=limit)
        for _ in range(before):  # the channel hears of nothing before it is registered
            at = house.at
            failed[at] = house.happens(run(Outcome.FAILED, at))
        catalog.register_channels(["jira"])
        for kind, then, troubles in [*happenings, ("review", "deliver", [])]:
            event = event_of(kind, house, [at for at in failed if not ticketed(at)])
            at = house.at
            entry = house.happens(event)
            if isinstance(event, RunFinished) and event.record.outcome is Outcome.FAILED:
                failed[at] = entry
            if isinstance(event, ReviewMade):
                reviews[entry] = event
            lasting = lasting - ENDS.get(kind, set()) | BEGINS.get(kind, set())
            if then != "wait":
                fake.posts.extend(TROUBLES[trouble] if trouble else None for trouble in troubles)
                attempt(house, killed=then == "killed")
            one_open_ticket_for_a_cause(fake)
        fake.posts.clear()
        house.deliver()
        one_open_ticket_for_a_cause(fake)
        for at in failed:
            token = f"<{at.astimezone(UTC):%d.%H:%M}>"
            assert sum(token in ticket.text for ticket in fake.tickets.values()) == 1, token
        marks = [found for ticket in fake.tickets.values() for found in re.findall(r"scpln-backup: (\w+)", ticket.text)]
        marks += [label for ticket in fake.tickets.values() for label in ticket.labels if label.startswith(f"{LABEL}-")]
        assert len(marks) == len(set(marks))
        assert set(catalog.causes("jira")) == lasting
        assert {cause.replace(" ", "-") for cause in lasting} == {
            label.partition("production.scpln.")[2]
            for ticket in fake.tickets.values()
            for label in ticket.labels
            if label.startswith(f"{LABEL}.") and not ticket.done
        }


def attempt(house: House, *, killed: bool) -> None:
    """As the courier does: until all is told, or one letter does not get through."""
    try:
        house.deliver(killed=killed)
    except (DeliveryError, Killed):
        return


def one_open_ticket_for_a_cause(fake: FakeJira) -> None:
    labels = [
        label
        for ticket in fake.tickets.values()
        if not ticket.done
        for label in ticket.labels
        if label.startswith(f"{LABEL}.")
    ]
    assert len(labels) == len(set(labels))
