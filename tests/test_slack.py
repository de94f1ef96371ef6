"""Messages to Slack: their form, when they are sent, and what becomes of them when Slack does not take them."""

import json
import logging
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scpln_backup.config.schema import Locale
from scpln_backup.errors import DeliveryError
from scpln_backup.events import (
    ArtifactVerified,
    BackupOverdue,
    ConfigReloaded,
    DaemonStarted,
    DrillFinished,
    IncidentClosed,
    ReviewMade,
    RunFinished,
    ServiceFailed,
    TestMessage,
)
from scpln_backup.model import Outcome, Severity, Topic
from scpln_backup.notify.mrkdwn import escape, pieces
from scpln_backup.notify.slack import Slack
from scpln_backup.notify.slack_layout import TEXT_LIMIT, Content, Layout, compose
from scpln_backup.observers.channels.slack import SlackChannel
from scpln_backup.observers.wording.message import message
from scpln_backup.records.outbox import Cause, Entry
from scpln_backup.rules import report
from support import told
from support.fake_slack import (
    ALL_SCOPES,
    BLOCKS_LIMIT,
    CHANNEL,
    CHANNEL_ID,
    PATH,
    TOKEN,
    Blocks,
    FakeSlack,
    shown,
    text_length,
)
from support.fakes import GARBAGE, TOO_MANY, UNAVAILABLE, Answer, Cut, Hang
from support.told import DAY, MINUTE, NIGHT, around, entry, run

KEY = "f00d slack 7-7"
EVERYTHING = frozenset(Topic)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake():
    with FakeSlack() as slack:
        yield slack


def client(fake: FakeSlack, channel: str = CHANNEL, token: str = TOKEN, timeout_seconds: int = 10) -> Slack:
    return Slack(token, channel=channel, api_url=fake.api_url, timeout_seconds=timeout_seconds)


def content(title: str = "scpln (production): backup done") -> Content:
    return compose(Layout(title=title, sentences=("All is well.",), footer="db1", shortened="shortened"))


def post(slack: Slack, *, doubtful: bool = False, key: str = KEY) -> str:
    return slack.post(content(), key, since=NIGHT, doubtful=doubtful)


def refused(slack: Slack, *, doubtful: bool = False) -> DeliveryError:
    """What is said about a message that did not get through; never the token."""
    with pytest.raises(DeliveryError) as caught:
        post(slack, doubtful=doubtful)
    error = caught.value
    assert TOKEN not in f"{error!s} {error!r} {error.__cause__!r}"
    assert "\n" not in str(error)
    return error


# One message


def test_a_message_arrives_once_with_its_key(fake):
    timestamp = post(client(fake))
    (message,) = fake.messages
    assert message["ts"] == timestamp
    assert message["metadata"] == {"event_type": "scpln_backup", "event_payload": {"key": KEY}}
    assert message["text"] == "scpln (production): backup done\nAll is well."
    assert message["unfurl_links"] is False
    assert fake.methods() == ["chat.postMessage"]


@pytest.mark.parametrize("url", ["{url}/api", "{url}/api/"])
def test_the_address_may_end_with_a_slash_or_not(fake, url):
    Slack(TOKEN, channel=CHANNEL_ID, api_url=url.format(url=fake.url)).post(content(), KEY, since=NIGHT, doubtful=False)
    assert len(fake.messages) == 1


def test_nothing_is_logged_twice(fake, caplog):
    fake.script(Cut())
    with caplog.at_level(logging.DEBUG):
        refused(client(fake))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("code", ["msg_blocks_too_long", "invalid_blocks"])
def test_a_message_whose_blocks_are_refused_goes_without_them(fake, code):
    fake.script(Answer.json({"ok": False, "error": code}))
    post(client(fake))
    (message,) = fake.messages
    assert "blocks" not in message
    assert message["text"].startswith("scpln (production)")
    assert message["metadata"]["event_payload"] == {"key": KEY}


# What goes wrong


def test_too_many_requests(fake):
    fake.script(TOO_MANY)
    error = refused(client(fake))
    assert (error.retry_after_seconds, error.permanent, error.unsure) == (30.0, False, False)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}])
def test_too_many_requests_that_do_not_say_how_long(fake, headers):
    fake.script(Answer(429, b"", headers))
    assert refused(client(fake)).retry_after_seconds == 60.0


def test_too_many_requests_the_other_way(fake):
    fake.script(Answer.json({"ok": False, "error": "ratelimited"}, headers={"Retry-After": "7"}))
    assert refused(client(fake)).retry_after_seconds == 7.0


@pytest.mark.parametrize("answer", [UNAVAILABLE, Answer(500, TOKEN.encode()), Answer(502, b"\xff\xfe")])
def test_a_broken_server_may_have_posted_it(fake, answer):
    fake.script(answer)
    error = refused(client(fake))
    assert (error.permanent, error.unsure, error.retry_after_seconds) == (False, True, None)


@pytest.mark.parametrize("code", ["internal_error", "fatal_error"])
def test_slack_itself_does_not_know(fake, code):
    fake.refuses = code
    error = refused(client(fake))
    assert (error.permanent, error.unsure) == (False, True)


def test_a_hang_ends_by_itself(fake):
    fake.script(Hang())
    error = refused(client(fake, timeout_seconds=1))
    assert (error.permanent, error.unsure) == (False, True)


@pytest.mark.parametrize(
    "answer",
    [
        GARBAGE,
        Answer(200, b""),
        Answer(200, b"<html>" + TOKEN.encode()),
        Answer(200, b"[]"),
        Answer(200, b'"ok"'),
        Answer.json({"ok": False, "error": f"Bearer {TOKEN}"}),
        Answer.json({"ok": False}),
        Cut(),
    ],
)
def test_a_broken_answer_may_be_a_posted_message(fake, answer):
    fake.script(answer)
    error = refused(client(fake))
    assert (error.permanent, error.unsure) == (False, True)


@pytest.mark.parametrize("status", [302, 404, 407])
def test_an_answer_that_is_not_slacks(fake, status):
    fake.script(Answer(status, TOKEN.encode()))
    error = refused(client(fake))
    assert (error.permanent, error.unsure) == (True, False)
    assert "[slack] api_url" in str(error)


def test_nobody_listens():
    with FakeSlack() as gone:
        url = gone.api_url
    error = refused(Slack(TOKEN, channel=CHANNEL, api_url=url))
    assert (error.permanent, error.unsure) == (False, False)
    assert "cannot be reached" in str(error)


def test_a_certificate_that_nobody_vouches_for(tmp_path, monkeypatch):
    with FakeSlack(certificate=tmp_path) as fake:
        error = refused(client(fake))
        assert (error.permanent, error.unsure) == (False, False)
        assert "certificate" in str(error)
        assert fake.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fake.pem"))
        post(client(fake))
        assert len(fake.messages) == 1


@pytest.mark.parametrize("url", ["http://slack.example/api/", "http://192.0.2.1/api/", "ftp://localhost.example/"])
def test_the_token_is_not_sent_in_the_open(url):
    error = refused(Slack(TOKEN, channel=CHANNEL, api_url=url))
    assert error.permanent
    assert "https://" in str(error)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("invalid_auth", "[slack] token_file"),
        ("token_expired", "[slack] token_file"),
        ("token_revoked", "install the app again"),
        ("account_inactive", "[slack] token_file"),
        ("channel_not_found", f"no channel {CHANNEL}"),
        ("not_in_channel", "/invite"),
        ("is_archived", "unarchive it, or name another channel in [slack] channel"),
        ("missing_scope", "the scope chat:write"),
        ("ekm_access_denied", "https://docs.slack.dev/"),
    ],
)
def test_a_refusal_says_what_to_do(fake, code, said):
    fake.refuses = code
    error = refused(client(fake))
    assert (error.permanent, error.unsure) == (True, False)
    assert str(error).startswith(f"Slack: {code}; ")
    assert said in str(error)


def test_a_wrong_token(fake):
    assert "invalid_auth" in str(refused(client(fake, token="xoxb-wrong")))
    assert fake.messages == []


def test_a_channel_that_is_not_there(fake):
    assert "no channel #elsewhere" in str(refused(client(fake, channel="#elsewhere")))


# In doubt


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL.removeprefix("#"), CHANNEL_ID])
@pytest.mark.parametrize("end", [Cut(done=True), Answer(500, done=True)])
def test_a_message_that_arrived_after_all_is_found(fake, channel, end):
    slack = client(fake, channel=channel)
    fake.script(end)
    assert refused(slack).unsure
    fake.say("good morning")
    assert post(slack, doubtful=True) == fake.messages[0]["ts"]
    assert [message["text"] for message in fake.messages][1:] == ["good morning"]


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL_ID])
def test_a_message_that_did_not_arrive_is_posted_once(fake, channel):
    slack = client(fake, channel=channel)
    post(slack, key="f00d slack 6-6")
    fake.say("of another app", metadata={"event_type": "scpln_backup", "event_payload": {"key": "beef slack 7-7"}})
    fake.script(Cut())
    assert refused(slack).unsure
    post(slack, doubtful=True)
    keys = [message["metadata"]["event_payload"]["key"] for message in fake.messages]
    assert keys == ["f00d slack 6-6", "beef slack 7-7", KEY]


def test_a_message_is_found_behind_much_talk(fake):
    slack = client(fake, channel=CHANNEL_ID)
    fake.page_size = 3
    first = post(slack)
    for number in range(10):
        fake.say(f"talk {number}")
    assert post(slack, doubtful=True) == first
    assert len(fake.messages) == 11


def test_only_what_came_since_is_looked_at(fake):
    slack = client(fake, channel=CHANNEL_ID)
    fake.now = (NIGHT - 2 * HOUR).timestamp()
    post(slack)
    fake.now = NIGHT.timestamp()
    post(slack, doubtful=True)
    assert len(fake.messages) == 2


@pytest.mark.parametrize(
    ("scopes", "channel"),
    [
        ({"chat:write"}, CHANNEL),
        ({"chat:write"}, CHANNEL_ID),
        ({"chat:write", "channels:read"}, CHANNEL),
        ({"chat:write", "channels:history", "groups:read"}, CHANNEL),
    ],
)
def test_who_may_not_look_posts_again(fake, scopes, channel):
    slack = client(fake, channel=channel)
    fake.scopes = frozenset(scopes)
    fake.script(Cut(done=True))
    refused(slack)
    post(slack, doubtful=True)
    assert len(fake.messages) == 2


@pytest.mark.parametrize("problem", [TOO_MANY, UNAVAILABLE, Cut(), GARBAGE])
def test_when_looking_fails_the_doubt_stays(fake, problem):
    slack = client(fake, channel=CHANNEL_ID)
    fake.script(problem)
    error = refused(slack, doubtful=True)
    assert error.unsure
    assert "when looking" in str(error)
    assert fake.messages == []


# Whose token it is


def test_check_says_whose_token_it_is_and_changes_nothing(fake):
    account = client(fake).check()
    assert (account.team, account.bot, account.scopes) == ("Example", "scpln", ALL_SCOPES)
    assert fake.methods() == ["auth.test"]
    assert fake.messages == []


def test_check_of_a_revoked_token(fake):
    fake.refuses = "token_revoked"
    with pytest.raises(DeliveryError, match="token_revoked") as caught:
        client(fake).check()
    assert caught.value.permanent


# The form of a message

anything = st.text(max_size=200)
huge = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=20), st.sampled_from([1, 50, 3000]))


@given(
    title=huge,
    sentences=st.lists(huge, max_size=4),
    facts=st.lists(st.tuples(anything, huge), max_size=25),
    listing=st.none() | huge,
    document=st.none() | huge | st.lists(huge, max_size=60).map("\n\n".join),
)
@settings(deadline=None, max_examples=60)
def test_any_message_is_within_slacks_limits(title, sentences, facts, listing, document):
    made = compose(
        Layout(
            title=f"! {title}",
            sentences=sentences,
            facts=[(label or "-", value) for label, value in facts],
            listing=listing,
            document=document,
            footer="db1",
            shortened="shortened",
        )
    )
    blocks = json.loads(json.dumps(made.blocks))
    msgspec.convert(blocks, Blocks)
    assert text_length(blocks) < BLOCKS_LIMIT
    assert len(made.text) <= TEXT_LIMIT
    for text in (made.text, *_texts(blocks)):
        text.encode()
        assert "<!" not in text
        assert "<@" not in text


def _texts(blocks: Any) -> list[str]:
    """All of them that are mrkdwn."""
    if isinstance(blocks, list):
        return [text for block in blocks for text in _texts(block)]
    if not isinstance(blocks, dict):
        return []
    own = [blocks["text"]] if blocks["type"] == "mrkdwn" else []
    return own + [text for value in blocks.values() for text in _texts(value)]


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("case", list(told.cases()), ids=lambda case: case.label)
def test_every_event_can_be_posted(fake, locale, case):
    """The fake takes only what the API takes."""
    wide_open = SlackChannel(
        client(fake), topics=EVERYTHING, level=Severity.INFO, around=around(locale, **case.changes), catalog_id="c"
    )
    troubles = ("run", "service", "drill", f"artifact {told.CORRUPT}")
    step = wide_open.next_step([entry(case.event)], dict.fromkeys(troubles, case.cause) if case.cause else {})
    if step.letter is None:
        assert case.label in ("service", "sound", "deleted, no news", "test over")
        return
    wide_open.send(step.letter, step.key, doubtful=False)
    (posted,) = fake.messages
    words = message(entry(case.event), case.cause, around(locale, **case.changes))
    assert posted["blocks"][0]["text"]["text"].endswith(words.headline)
    # Whoever sees no blocks has all of it all the same.
    for text in (words.headline, *words.sentences, *(value for _, value in words.facts), words.listing or ""):
        assert escape(text) in posted["text"]


def test_what_calls_people_calls_nobody(fake):
    event = told.failed(error="<!channel> <@U1> & <https://evil.example|click>")
    letter = channel(fake).next_step([entry(event)], {}).letter
    assert letter is not None
    channel(fake).send(letter, KEY, doubtful=False)
    (posted,) = fake.messages
    for text in (posted["text"], shown(posted)):
        assert "&lt;!channel&gt; &lt;@U1&gt; &amp; &lt;https" in text


@pytest.mark.parametrize("lead", range(6))
def test_a_cut_is_marked_and_never_within_an_escaped_character(lead):
    line = "x" * lead + "<&>" * 3_000
    made = compose(Layout(title="t", document=line, footer="f", shortened="s"))
    for text in (made.text, made.blocks[2]["text"]["text"]):
        assert text.endswith(";…")
        assert text.count("&") == text.count(";")


def test_a_document_that_does_not_fit_says_where_the_whole_is(fake):
    event = ReviewMade(month="2026-10", path="/var/lib/r.md", text="\n\n".join(f"- line {n} " * 9 for n in range(300)))
    slack = channel(fake, locale=Locale.JA)
    step = slack.next_step([entry(event)], {})
    assert step.letter is not None
    slack.send(step.letter, step.key, doubtful=False)
    text = shown(fake.messages[0])
    assert "• line 0 " in text
    assert "• line 299" not in text
    assert "以下を省略しました" in text
    assert "*全文*\n`/var/lib/r.md`" in text


def test_an_incidents_report_is_readable_in_slack(fake):
    incident = replace(
        told.INCIDENT, closed_at=NIGHT + HOUR, scope="Planners & <others>", prevention="Watch the **disk**"
    )
    text = report.draft(
        incident, database="scpln", environment="production", locale="en", zone=told.ZONE, now=NIGHT + HOUR
    )
    slack = channel(fake)
    step = slack.next_step([entry(IncidentClosed(incident=incident, report=text))], {})
    assert step.letter is not None
    slack.send(step.letter, step.key, doubtful=False)
    seen = shown(fake.messages[0])
    assert "*Scope*\n\nPlanners &amp; &lt;others&gt;\n\n*Data lost*" in seen
    assert "*Prevention*\n\nWatch the *disk*" in seen
    assert "• *Restored from*: `scpln-20261121_0230.db.gz` (taken 2026-11-21 02:30:00 JST)" in seen
    assert "shortened" not in seen.lower()
    assert "| ---" not in seen


@pytest.mark.parametrize(
    ("markdown", "mrkdwn"),
    [
        ("# Title #", "*Title*"),
        ("### **Bold** title", "*Bold title*"),
        ("a **b** c", "a *b* c"),
        ("a *b* c", "a _b_ c"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("- one\n  - two\n* three", "• one\n  • two\n• three"),
        ("1. one\n2. two", "1. one\n2. two"),
        ("[docs](https://example.org/?a=1&b=2)", "<https://example.org/?a=1&amp;b=2|docs>"),
        ("<https://example.org/>", "<https://example.org/>"),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("`a < **b**`", "`a &lt; **b**`"),
        ("`` a`b ``", "`a'b`"),
        ("> said\n> so", "> said\n> so"),
        (r"a \| b \*c\*", "a | b *c*"),
        ("para\ngraph\n\n---\n\nnext", "para\ngraph\n\nnext"),
        ("```\na < b\n\n**c**\n```", "a &lt; b\n**c**"),
        ("```\nnever closed", "never closed"),
        ("| a | b |\n| --- | ---: |\n| `x` | 1 |\n| y\\|z | 2 |", "• `x`: 1\n• *y|z*: 2"),
        ("| a | b | c |\n|---|---|---|\n| x | 1 | 復旧 |\n| yy | 22 | z |", "a   b   c\nx   1   復旧\nyy  22  z"),
        (
            f"| when | what | took |\n|---|---|---:|\n| now | {'restore ' * 12}| 3 |\n| then | 12 | - |",
            f"• *now*  {'restore ' * 12}".rstrip() + "; took: 3\n• *then*  what: 12",
        ),
        ("| no table", "| no table"),
    ],
)
def test_markdown_becomes_what_slack_understands(markdown, mrkdwn):
    assert "\n\n".join(piece.text for piece in pieces(markdown)) == mrkdwn


def test_code_and_narrow_tables_are_shown_as_they_are():
    markdown = "text\n```\ncode\n```\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\nmore"
    assert [piece.code for piece in pieces(markdown)] == [False, True, True, False]


# What is sent, and when


def channel(
    fake: FakeSlack | None = None,
    *,
    topics: frozenset[Topic] = EVERYTHING,
    level: Severity = Severity.INFO,
    locale: Locale = Locale.EN,
    **changes: Any,
) -> SlackChannel:
    slack = client(fake) if fake is not None else Slack(TOKEN, channel=CHANNEL, api_url="https://slack.invalid/")
    return SlackChannel(slack, topics=topics, level=level, around=around(locale, **changes), catalog_id="f00d")


def good(number: int, days_ago: int = 0) -> Entry:
    record = run(days_ago)
    return entry(RunFinished(record=record), number, record.started_at)


def bad(number: int, days_ago: int = 0) -> Entry:
    event = told.failed(days_ago)
    return entry(event, number, event.record.started_at)


def title(step: Any) -> str:
    text: str = step.letter.content.blocks[0]["text"]["text"]
    return text


def test_one_event_one_message():
    step = channel().next_step([bad(4), good(5)], {})
    assert (step.settles, step.key, step.about) == (4, "slack 4-4", (4,))
    assert (step.opens, step.closes) == (("run",), ())
    assert title(step).startswith("🚨 scpln (production): backup failed")


def test_what_is_not_wanted_is_passed_over():
    nothing = [entry(ConfigReloaded(), 1), entry(DaemonStarted(version="1"), 2)]
    assert channel().next_step(nothing, {}).letter is None
    assert channel().next_step(nothing, {}).settles == 2
    step = channel().next_step([*nothing, good(3)], {})
    assert (step.settles, step.about) == (3, (3,))


def test_topics_and_level():
    drill = entry(DrillFinished(record=told.DRILL), 1)
    assert channel(topics=frozenset({Topic.RUN})).next_step([drill], {}).letter is None
    assert channel(level=Severity.CRITICAL).next_step([good(1)], {}).letter is None
    assert channel(level=Severity.CRITICAL).next_step([bad(1)], {}).letter is not None


def test_a_recovery_is_told_to_who_was_told_of_the_trouble():
    causes = {"run": Cause(since=NIGHT - 2 * DAY, count=2), "overdue": Cause(since=NIGHT - DAY)}
    step = channel(level=Severity.CRITICAL).next_step([good(9)], causes)
    assert title(step).startswith("✅ scpln (production): backups work again")
    # Both troubles are over with the one message.
    assert (step.settles, set(step.closes)) == (9, {"run", "overdue"})


def test_the_end_of_a_failed_service():
    step = channel().next_step([entry(DaemonStarted(version="1"), 3)], {"service": Cause(since=NIGHT)})
    assert step.closes == ("service",)
    failed = entry(ServiceFailed(unit="u.service", problem="exit code 1", invocation="i"), 2)
    assert channel().next_step([failed], {}).opens == ("service",)


def test_a_degraded_run_ends_one_trouble_and_goes_on_with_another():
    degraded = entry(RunFinished(record=run(0, Outcome.DEGRADED, error="x")), 5)
    step = channel().next_step([degraded], {"overdue": Cause(since=NIGHT), "run": Cause(since=NIGHT)})
    assert (step.opens, step.closes) == (("run",), ("overdue",))


def test_a_week_without_slack_is_one_message():
    waiting = [good(number, 9 - number) for number in range(1, 5)] + [bad(5, 4), bad(6, 3), good(7, 2)]
    step = channel().next_step(waiting, {})
    assert (step.settles, step.key, step.about) == (7, "slack 1-7", (1, 2, 3, 4, 5, 6, 7))
    assert title(step) == "🚨 scpln (production): 7 messages since 2026-11-14 02:30"
    # What began and ended in between leaves nothing to tell later.
    assert (step.opens, step.closes) == ((), ())


def test_a_folded_message_settles_what_began_before_and_what_goes_on():
    told_before = {"run": Cause(since=NIGHT - 9 * DAY), "overdue": Cause(since=NIGHT - 9 * DAY)}
    corrupt = entry(ArtifactVerified(name="x", error="cut off"), 6, NIGHT - DAY)
    late = entry(BackupOverdue(since=NIGHT, deadline=NIGHT, hours=24), 7, NIGHT - DAY)
    waiting = [good(number, 9 - number) for number in range(1, 6)] + [corrupt, late]
    step = channel().next_step(waiting, told_before)
    assert set(step.opens) == {"artifact x", "overdue"}
    assert step.closes == ("run",)


def test_a_folded_message_tells_the_recovery_from_what_it_tells():
    """Only failures were asked for; the success after one is news then, and the next one is not."""
    waiting = [bad(number, 9 - number) for number in range(1, 7)] + [good(7, 2), good(8, 1)]
    step = channel(level=Severity.CRITICAL).next_step(waiting, {})
    assert step.about == (1, 2, 3, 4, 5, 6, 7)
    assert step.settles == 7


def test_five_are_not_folded_nor_what_is_fresh():
    few = [good(number, 9 - number) for number in range(1, 6)]
    assert channel().next_step(few, {}).about == (1,)
    fresh = [entry(told.failed(), number, NIGHT - 10 * MINUTE) for number in range(1, 9)]
    assert channel().next_step(fresh, {}).about == (1,)
    assert channel(now=NIGHT + 6 * MINUTE).next_step(fresh, {}).about == tuple(range(1, 9))


@pytest.mark.parametrize(
    "event",
    [IncidentClosed(incident=told.INCIDENT, report="# Report"), ReviewMade(month="2026-10", path="/r", text="#")],
)
def test_a_report_is_never_folded(event):
    document = entry(event, 7, NIGHT - DAY)
    waiting = [*(good(number, 9 - number) for number in range(1, 7)), document, good(8)]
    assert channel().next_step(waiting, {}).about == (1, 2, 3, 4, 5, 6)
    alone = channel().next_step(waiting[6:], {})
    assert alone.about == (7,)
    assert "*" in shown({"blocks": alone.letter.content.blocks})
    few = [*(good(number, 9 - number) for number in range(1, 5)), document, good(8), good(9)]
    assert channel().next_step(few, {}).about == (1,)


def test_a_test_message_is_sent_whatever_was_asked_for():
    test = entry(TestMessage(user="alice"), 0)
    step = channel(topics=frozenset({Topic.REVIEW}), level=Severity.CRITICAL).next_step([test], {})
    assert title(step) == "✅ scpln (production): test message"
    assert step.opens == ()


def test_the_end_of_a_test_is_no_second_message():
    assert channel().next_step([entry(TestMessage(user="alice", over=True), 0)], {}).letter is None


def test_the_same_step_has_the_same_key_when_it_is_tried_again():
    waiting = [bad(4)]
    first = channel().next_step(waiting, {})
    again = channel(now=NIGHT + 5 * HOUR, runs=()).next_step(waiting, {})
    assert first.key == again.key
    assert first.letter is not None
    assert again.letter is not None
    assert first.letter.since == again.letter.since == waiting[0].at


def test_environments_that_share_a_channel_do_not_take_each_others_messages_for_their_own(fake):
    production, staging = channel(fake), SlackChannel(
        client(fake), topics=EVERYTHING, level=Severity.INFO, around=around(environment="staging"), catalog_id="beef"
    )  # fmt: skip
    fake.now = NIGHT.timestamp()
    for each in (production, staging):
        step = each.next_step([bad(4)], {})
        assert step.letter is not None
        each.send(step.letter, step.key, doubtful=True)
    assert len(fake.messages) == 2


@pytest.mark.parametrize(
    ("event", "icon"),
    [
        (RunFinished(record=run(0)), "✅"),
        (RunFinished(record=run(0, Outcome.SUSPECT, error="fell")), "⚠️"),
        (told.failed(), "🚨"),
        (ReviewMade(month="2026-10", path="/r.md", text="# Review"), "📋"),
    ],
)
def test_what_it_is_shows_at_a_glance(event, icon):
    step = channel().next_step([entry(event)], {})
    assert title(step).startswith(f"{icon} scpln (production): ")
    assert step.letter is not None
    assert step.letter.content.text.startswith(icon)


def test_the_address_of_every_request_is_under_the_configured_one(fake):
    slack = client(fake)
    post(slack, doubtful=True)
    slack.check()
    assert {request.path.rpartition("/")[0] + "/" for request in fake.requests} == {PATH}
