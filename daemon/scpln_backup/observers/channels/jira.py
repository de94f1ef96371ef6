"""Jira as a channel: a ticket for each cause, open as long as the cause lasts.

- An event that opens a cause makes a ticket; further ones are comments on it.
- When the cause is over, a comment says so and the ticket goes through the configured transition.
- What waits together, after an outage, is folded: failures in a row of one cause are told in one letter. One that is
  over again by now gets its ticket all the same, for somebody has to find out why.
- The monthly review makes one ticket for all failed runs that have none.
- A test message is a cause like any other: it makes a ticket, which its second half closes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import DeliveryError
from scpln_backup.events import ReviewMade
from scpln_backup.model import Topic
from scpln_backup.notify.jira import LABEL, slug
from scpln_backup.observers.notices import notice
from scpln_backup.observers.planning import Channel, Interest, Step
from scpln_backup.records.outbox import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from scpln_backup.events import Event
    from scpln_backup.model import Severity
    from scpln_backup.notify.jira import Jira
    from scpln_backup.observers.message import Message
    from scpln_backup.records.outbox import Entry

# Together with two blocks within the 32767 that Jira takes, so that nothing is cut in the middle of a block.
_PROSE_LIMIT = 14_000
_BLOCK_LIMIT = 9_000
_LINE_LIMIT = 200
_LISTED = 30

_BACKSLASH = "&#92;"
_NOTHING = "\N{ZERO WIDTH SPACE}"


@dataclass(frozen=True, kw_only=True)
class Open:
    """Make a ticket, or tell the open one of this cause. `lines` are further ones: what was folded."""

    cause: str | None
    message: Message
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comment:
    """Tell the ticket of a cause that it happened again."""

    cause: str
    ticket: str
    message: Message
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Close:
    """Tell a ticket that it is over, and take it through `transition`; "": people close it."""

    ticket: str
    message: Message
    transition: str = ""


Letter = Open | Comment | Close


class JiraChannel(Channel[Letter]):
    """`word` puts an entry into words; its cause is as if all before it had been told one by one.

    `ticketed` says whether the failed run that began then has a ticket by now: one that waited when the review was
    made has got one since.
    """

    name = "jira"

    def __init__(
        self,
        service: Jira,
        *,
        topics: frozenset[Topic],
        level: Severity,
        transition: str,
        database: str,
        environment: str,
        word: Callable[[Entry, Cause | None], Message],
        ticketed: Callable[[datetime], bool],
    ) -> None:
        self._service = service
        self._topics = topics
        self._level = level
        self._transition = transition
        self._origin = f"{environment}.{database}"
        self._word = word
        self._ticketed = ticketed

    def next_step(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> Step[Letter]:
        tickets = {name: cause for name, cause in causes.items() if cause.ref is not None}
        interest = Interest(topics=self._topics, level=self._level, causes=tickets)
        for place, entry in enumerate(waiting):
            if missing := self._missing(entry.event):
                return self._review(entry, missing)
            meaning = notice(entry.event)
            over = interest.over(meaning)
            opened = interest.opens(meaning)
            if over:  # before what the entry opens, which then settles it
                return self._close(entry, over[0], tickets[over[0]], last=len(over) == 1 and opened is None)
            if opened is not None:
                return self._open(opened, self._in_a_row(opened, waiting[place:], interest), tickets.get(opened))
        return Step(settles=waiting[-1].id)

    def send(self, letter: Letter, key: str, *, doubtful: bool) -> str | None:
        try:
            match letter:
                case Open():
                    return self._send_open(letter, key, doubtful=doubtful)
                case Comment():
                    text = wiki(letter.message, letter.lines)
                    if self._service.comment(letter.ticket, text, key, doubtful=doubtful):
                        return letter.ticket
                    again = Open(cause=letter.cause, message=letter.message, lines=letter.lines)
                    return self._send_open(again, key, doubtful=doubtful)
                case Close():
                    return self._send_close(letter, key, doubtful=doubtful)
        except DeliveryError as error:
            # What was in doubt before still is, whatever this attempt met with.
            error.unsure = error.unsure or doubtful
            raise

    # Steps

    def _in_a_row(self, cause: str, rest: Sequence[Entry], interest: Interest) -> list[Entry]:
        """The first of `rest` and what follows it about the same cause, up to what needs another letter."""
        interest = replace(interest, causes={**interest.causes, cause: Cause(since=rest[0].at)})
        found: list[Entry] = []
        for entry in rest:
            meaning = notice(entry.event)
            if interest.opens(meaning) == cause and not interest.over(meaning):
                found.append(entry)
            elif interest.wanted(meaning) or self._missing(entry.event):
                break
        return found

    def _open(self, cause: str, entries: Sequence[Entry], told: Cause | None) -> Step[Letter]:
        last = entries[-1]
        message = self._word(last, _before_last(entries, told))
        lines = self._lines(entries)
        letter: Letter = Open(cause=cause, message=message, lines=lines)
        if told is not None:
            letter = Comment(cause=cause, ticket=str(told.ref), message=message, lines=lines)
        return Step(
            settles=last.id,
            letter=letter,
            key=self._key(f"open {cause} {last.id}", entries[0]),
            opens=(cause,),
            about=tuple(entry.id for entry in entries),
        )

    def _close(self, entry: Entry, cause: str, told: Cause, *, last: bool) -> Step[Letter]:
        letter = Close(ticket=str(told.ref), message=self._word(entry, told), transition=self._transition)
        return Step(
            settles=entry.id if last else entry.id - 1,
            letter=letter,
            key=self._key(f"close {cause}", entry),
            closes=(cause,),
            # What an entry opens is its ticket, not what it closes on the way.
            about=(entry.id,) if last else (),
        )

    def _review(self, entry: Entry, missing: ReviewMade) -> Step[Letter]:
        message = msgspec.structs.replace(self._word(replace(entry, event=missing), None), document=None)
        letter = Open(cause=None, message=message)
        return Step(settles=entry.id, letter=letter, key=self._key("review", entry), about=(entry.id,))

    def _missing(self, event: Event) -> ReviewMade | None:
        """A review, if it has found failed runs without a ticket, with those that have none yet."""
        if not isinstance(event, ReviewMade) or Topic.REVIEW not in self._topics:
            return None
        runs = tuple(at for at in event.unticketed if not self._ticketed(at))
        return msgspec.structs.replace(event, unticketed=runs) if runs else None

    def _lines(self, entries: Sequence[Entry]) -> tuple[str, ...]:
        """What is folded into one letter: when, and how often, then each."""
        if len(entries) == 1:
            return ()
        told = [f"{_minute(entry.at)}: {self._word(entry, None).headline}"[:_LINE_LIMIT] for entry in entries]
        if len(told) > _LISTED:
            half = _LISTED // 2
            told = [*told[:half], f"… ({len(told) - 2 * half})", *told[-half:]]
        return (f"{_minute(entries[0].at)} … {_minute(entries[-1].at)}: {len(entries)}", *told)

    def _key(self, what: str, entry: Entry) -> str:
        # With the time, because a catalog that replaces a lost one counts its entries from 1 again.
        return f"{self._origin} {what} {entry.id} {entry.at.timestamp():.6f}"

    # Letters

    def _send_open(self, letter: Open, key: str, *, doubtful: bool) -> str:
        text = wiki(letter.message, letter.lines)
        labels = () if letter.cause is None else (f"{LABEL}.{slug(self._origin)}.{slug(letter.cause)}",)
        ticket = self._service.created(key) if doubtful else None
        for label in labels:
            # Nobody remembers it, but it is there: made before the catalog was lost, or people have not closed it.
            known = self._service.open_ticket(label) if ticket is None else None
            if known is not None and self._service.comment(known, text, key, doubtful=doubtful):
                ticket = known
        if ticket is None:
            ticket = self._service.create(letter.message.headline, text, labels, key)
        return ticket

    def _send_close(self, letter: Close, key: str, *, doubtful: bool) -> str | None:
        if not self._service.comment(letter.ticket, wiki(letter.message), key, doubtful=doubtful):
            return None  # nobody misses it
        if letter.transition:
            self._service.transition(letter.ticket, letter.transition)
        return letter.ticket


def _before_last(entries: Sequence[Entry], told: Cause | None) -> Cause | None:
    """The cause as it was before the last of `entries`; None: that one is the first."""
    earlier = len(entries) - 1
    if told is not None:
        return msgspec.structs.replace(told, count=told.count + earlier)
    return Cause(since=entries[0].at, count=earlier) if earlier else None


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}"


def wiki(message: Message, lines: Sequence[str] = ()) -> str:
    """A message as Jira's wiki markup; nothing in it can be taken for markup, however it came there."""
    paragraphs = [f"h3. {escaped(message.headline)}", *(_commands(sentence) for sentence in message.sentences)]
    facts = "\n".join(f"* {escaped(label)}: {_value(value)}" for label, value in message.facts)
    listed = "\n".join(f"* {escaped(line)}" for line in lines)
    prose = "\n\n".join(filter(None, [*paragraphs, facts, listed]))
    if len(prose) > _PROSE_LIMIT:
        prose = prose[:_PROSE_LIMIT].rstrip("\\") + "…"
    return "\n\n".join([prose, *(_block(text) for text in (message.listing, message.document) if text is not None)])


def escaped(text: str) -> str:
    """One line of plain text, as markup.

    A backslash escapes what Jira's renderer (BackslashEscapeRendererComponent) takes one for; not a backslash, two of
    which are a line break. A line that begins like a heading or a quotation is kept from being one.
    """
    line = " ".join(text.split())
    line = re.sub(r"[-#*_+?^~|%{}\[\]()!@\\]", lambda found: _BACKSLASH if found[0] == "\\" else f"\\{found[0]}", line)
    return re.sub(r"^(?=(h[1-6]|bq)\.)", _NOTHING, line)


def _commands(sentence: str) -> str:
    """A sentence with `commands` between backticks."""
    texts = re.split("`([^`]+)`", " ".join(sentence.split()))
    return "".join(f"{{{{{escaped(text)}}}}}" if place % 2 else _spaced(text) for place, text in enumerate(texts))


def _spaced(text: str) -> str:
    """Escaped, with a space at either end if it has one there."""
    begin, end = (" " if text[place].isspace() else "" for place in (0, -1)) if text else ("", "")
    return f"{begin}{escaped(text)}{end}"


def _value(text: str) -> str:
    """A simple address stays one, to follow with a click."""
    return text if re.fullmatch("https?://[A-Za-z0-9.:/_-]+", text) else _commands(text)


def _block(text: str) -> str:
    """Preformatted text, which ends where we end it."""
    kept = text if len(text) <= _BLOCK_LIMIT else text[:_BLOCK_LIMIT] + "…"
    return "{noformat}\n" + re.sub(r"\{(?=noformat)", "{" + _NOTHING, kept, flags=re.IGNORECASE) + "\n{noformat}"
