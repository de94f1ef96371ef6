"""PagerDuty as a channel: an alert for each cause, open as long as the cause lasts."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import DeliveryError
from scpln_backup.events import TestMessage
from scpln_backup.notify.pagerduty import DEDUP_KEY_LIMIT, PagerDuty, Resolve, Trigger
from scpln_backup.observers.notices import TEST, notice
from scpln_backup.observers.planning import Channel, Interest, Step
from scpln_backup.records.outbox import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scpln_backup.model import Severity, Topic
    from scpln_backup.observers.message import Message
    from scpln_backup.records.outbox import Entry


class PagerDutyChannel(Channel[Trigger | Resolve]):
    """`host` and `page` are this machine's name and the address of its status page. `word` puts an entry into words;
    its cause is as if all before it had been told one by one.

    - An event that opens a cause triggers, again for each further one: PagerDuty adds those to the open alert.
    - An event that closes causes resolves each of them that was told of, one letter each.
    - What waits together, after an outage, is folded: of several triggers of a cause the last is sent, and none for a
      cause that is over again by now, for nobody is to be woken for that.
    - A test message triggers and resolves an alert of its own, whatever the channel wants to hear of.
    """

    name = "pagerduty"

    def __init__(
        self,
        service: PagerDuty,
        *,
        topics: frozenset[Topic],
        level: Severity,
        database: str,
        environment: str,
        host: str,
        page: str | None,
        word: Callable[[Entry, Cause | None], Message],
    ) -> None:
        self._service = service
        self._topics = topics
        self._level = level
        self._database = database
        self._environment = environment
        self._host = host
        self._page = page
        self._word = word

    def next_step(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> Step[Trigger | Resolve]:
        interest = Interest(topics=self._topics, level=self._level, causes=causes)
        opening: dict[str, list[Entry]] = {}
        for place, entry in enumerate(waiting):
            if isinstance(entry.event, TestMessage):
                return self._test(entry, entry.event)
            meaning = notice(entry.event)
            over = interest.over(meaning)
            if over:
                # The entry may need more letters, which its next step sees from the causes that are left.
                return self._resolve(entry, over[0], causes[over[0]], settles=entry.id - 1)
            opened = interest.opens(meaning)
            if opened is None:
                continue
            opening.setdefault(opened, []).append(entry)
            if not any(_concerns(later, opened, interest) for later in waiting[place + 1 :]):
                return self._trigger(opened, opening[opened], causes.get(opened))
        return Step(settles=waiting[-1].id)

    def send(self, letter: Trigger | Resolve, key: str, *, doubtful: bool) -> str:
        try:
            return self._service.send(letter)
        except DeliveryError as error:
            # What was in doubt before still is, whatever this attempt met with: the alert may be open by now.
            error.unsure = error.unsure or doubtful
            raise

    def _test(self, entry: Entry, event: TestMessage) -> Step[Trigger | Resolve]:
        if event.over:
            return self._resolve(entry, TEST, None, settles=entry.id)
        return self._trigger(TEST, [entry], None)

    def _resolve(self, entry: Entry, cause: str, told: Cause | None, *, settles: int) -> Step[Trigger | Resolve]:
        return Step(
            settles=settles,
            letter=Resolve(dedup_key=self._dedup_key(cause, told)),
            key=f"resolve {entry.id} {cause}",
            closes=(cause,),
            about=(entry.id,),
        )

    def _trigger(self, cause: str, entries: Sequence[Entry], told: Cause | None) -> Step[Trigger | Resolve]:
        """Of the last of `entries`, which all are about `cause`."""
        last = entries[-1]
        message = self._word(last, _before_last(entries, told))
        letter = Trigger(
            dedup_key=self._dedup_key(cause, told),
            summary=message.headline,
            source=self._host,
            severity=message.severity,
            at=last.at,
            component=self._database,
            group=self._environment,
            kind=cause.partition(" ")[0],
            details=_details(message),
            page=self._page,
        )
        return Step(
            settles=last.id,
            letter=letter,
            key=f"trigger {last.id} {cause}",
            opens=(cause,),
            about=tuple(entry.id for entry in entries),
        )

    def _dedup_key(self, cause: str, told: Cause | None) -> str:
        """What the alert was opened with; else the same for the same cause from whichever process."""
        if told is not None and told.ref is not None:
            return told.ref
        key = f"scpln-backup/{self._environment}/{self._database}/{cause}"
        if len(key) <= DEDUP_KEY_LIMIT:
            return key
        digest = sha256(key.encode(errors="replace")).hexdigest()
        return f"{key[: DEDUP_KEY_LIMIT - len(digest) - 1]}#{digest}"


def _concerns(entry: Entry, cause: str, interest: Interest) -> bool:
    """Whether it has something to say about the cause: that it goes on, is over, or is no longer worth a call."""
    meaning = notice(entry.event)
    return cause == interest.opens(meaning) or cause in meaning.closes or (meaning.eases and cause == meaning.opens)


def _before_last(entries: Sequence[Entry], told: Cause | None) -> Cause | None:
    """The cause as it was before the last of `entries`; None: that one is the first."""
    earlier = len(entries) - 1
    if told is not None:
        return msgspec.structs.replace(told, count=told.count + earlier)
    return Cause(since=entries[0].at, count=earlier) if earlier else None


def _details(message: Message) -> dict[str, str]:
    details = dict(message.facts)
    if message.sentences:
        details["details"] = "\n".join(message.sentences)
    if message.listing is not None:
        details["listing"] = message.listing
    return details
