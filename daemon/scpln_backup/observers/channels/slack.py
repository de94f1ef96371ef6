"""Slack as a channel: one message for each event that it was asked for, one for many after an outage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from scpln_backup.events import IncidentClosed, ReviewMade, TestMessage
from scpln_backup.model import Severity
from scpln_backup.notify.slack_layout import Content, Layout, compose
from scpln_backup.observers.notices import notice
from scpln_backup.observers.planning import Channel, Interest, Step
from scpln_backup.observers.wording.message import digest, message
from scpln_backup.observers.wording.scene import TEXTS
from scpln_backup.records.outbox import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from scpln_backup.model import Topic
    from scpln_backup.notify.slack import Slack
    from scpln_backup.observers.message import Message, Surroundings
    from scpln_backup.records.outbox import Entry

FOLDED_ABOVE = 5
FOLDED_AFTER = timedelta(minutes=15)

_ICONS = {
    Severity.INFO: "\N{WHITE HEAVY CHECK MARK}",
    Severity.WARNING: "\N{WARNING SIGN}\N{VARIATION SELECTOR-16}",
    Severity.CRITICAL: "\N{POLICE CARS REVOLVING LIGHT}",
}
_DOCUMENT_ICON = "\N{CLIPBOARD}"


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message as it is posted. `since`: when what it tells of happened; it cannot have been posted before."""

    content: Content
    since: datetime


@dataclass(frozen=True, kw_only=True)
class _News:
    """An entry that the channel is told of, with the trouble that goes on or is over with it, if there is one."""

    entry: Entry
    cause: Cause | None
    opens: str | None
    closes: tuple[str, ...]


class SlackChannel(Channel[Letter]):
    """`around`: how things stand at this delivery. `catalog_id`: with it a key is unique beyond this catalog.

    - An event is one message, however many troubles are over with it.
    - When more than five wait and the first is older than 15 minutes, they become one message. An incident's report
      and a month's review stay messages of their own: people wait for their text.
    """

    name = "slack"

    def __init__(
        self, slack: Slack, *, topics: frozenset[Topic], level: Severity, around: Surroundings, catalog_id: str
    ) -> None:
        self._slack = slack
        self._topics = topics
        self._level = level
        self._around = around
        self._catalog_id = catalog_id

    def next_step(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> Step[Letter]:
        news = self._news(waiting, causes)
        if not news:
            return Step(settles=waiting[-1].id)
        foldable = list(takewhile(lambda each: not _has_document(each.entry), news))
        if len(foldable) > FOLDED_ABOVE and self._around.now - foldable[0].entry.at > FOLDED_AFTER:
            return self._folded(foldable, causes)
        return self._single(news[0])

    def send(self, letter: Letter, key: str, *, doubtful: bool) -> str:
        # Several environments may share a channel of Slack's, and each counts its entries from one.
        return self._slack.post(letter.content, f"{self._catalog_id} {key}", since=letter.since, doubtful=doubtful)

    def _news(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> list[_News]:
        """What of `waiting` the channel is told of, each as if what is before it had been told."""
        going_on = dict(causes)
        news = []
        for entry in waiting:
            meaning = notice(entry.event)
            interest = Interest(topics=self._topics, level=self._level, causes=going_on)
            if isinstance(entry.event, TestMessage):
                # Whoever asked for it wants to see it; its second half is for those who have something to close.
                if not entry.event.over:
                    news.append(_News(entry=entry, cause=None, opens=None, closes=()))
                continue
            if not interest.wanted(meaning):
                continue
            opens, closes = interest.opens(meaning), interest.over(meaning)
            cause = next((going_on[name] for name in (*closes, opens) if name in going_on), None)
            news.append(_News(entry=entry, cause=cause, opens=opens, closes=closes))
            for name in closes:
                del going_on[name]
            if opens is not None:
                told = going_on.get(opens)
                going_on[opens] = Cause(since=told.since if told else entry.at, count=told.count + 1 if told else 1)
        return news

    def _single(self, news: _News) -> Step[Letter]:
        entry = news.entry
        return Step(
            settles=entry.id,
            letter=self._letter(message(entry, news.cause, self._around), entry.at, entry.at),
            key=f"slack {entry.id}-{entry.id}",
            opens=() if news.opens is None else (news.opens,),
            closes=news.closes,
            about=(entry.id,),
        )

    def _folded(self, news: Sequence[_News], causes: Mapping[str, Cause]) -> Step[Letter]:
        entries = [each.entry for each in news]
        open_now: dict[str, bool] = {}
        for each in news:
            open_now |= dict.fromkeys(each.closes, False)
            if each.opens is not None:
                open_now[each.opens] = True
        first, last = entries[0], entries[-1]
        return Step(
            settles=last.id,
            letter=self._letter(digest(entries, self._around), self._around.now, first.at),
            key=f"slack {first.id}-{last.id}",
            opens=tuple(name for name, is_open in open_now.items() if is_open),
            closes=tuple(name for name, is_open in open_now.items() if not is_open and name in causes),
            about=tuple(entry.id for entry in entries),
        )

    def _letter(self, what: Message, at: datetime, since: datetime) -> Letter:
        around = self._around
        layout = Layout(
            title=f"{_icon(what)} {what.headline}",
            sentences=what.sentences,
            facts=what.facts,
            listing=what.listing,
            document=what.document,
            footer=f"scpln-backup · {around.host} · {at.astimezone(around.zone):%Y-%m-%d %H:%M:%S %Z}",
            shortened=TEXTS[around.locale].shortened,
        )
        return Letter(content=compose(layout), since=since)


def _has_document(entry: Entry) -> bool:
    return isinstance(entry.event, (IncidentClosed, ReviewMade))


def _icon(what: Message) -> str:
    if what.severity is Severity.INFO and what.document is not None and not what.over:
        return _DOCUMENT_ICON
    return _ICONS[what.severity]
