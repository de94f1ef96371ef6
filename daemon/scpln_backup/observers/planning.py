"""How a channel's plan says what to send next. Pure: entries and causes in, one step out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from scpln_backup.model import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scpln_backup.model import Topic
    from scpln_backup.observers.notices import Notice
    from scpln_backup.records.outbox import Cause, Entry

L = TypeVar("L")

_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, kw_only=True)
class Step(Generic[L]):
    """What to do next about the entries that wait, oldest first.

    `letter` is what is to be sent, with one visible effect outside; None: nothing of these is for this channel.
    `key` names that effect and is the same whenever it is tried again. `settles` is the id of the entry up to which
    (inclusive) all is done after this step; one that needs a second letter is not settled by the first.
    `about` are the ids of the entries that the letter tells of; `opens` and `closes` are the causes that the channel
    has told of, or has told to be over, with this letter.
    """

    settles: int
    letter: L | None = None
    key: str = ""
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    about: tuple[int, ...] = ()


class Channel(ABC, Generic[L]):
    """One party that is told: its plan, which is pure, and the way to it."""

    name: ClassVar[str]

    @abstractmethod
    def next_step(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> Step[L]:
        """What to do about `waiting`, which has one entry at the least. `causes`: those the channel has told of."""

    @abstractmethod
    def send(self, letter: L, key: str, *, doubtful: bool) -> str | None:
        """Send, within seconds, and return what the service calls it (a ticket's key), if anything.

        `doubtful`: it was tried before and nobody knows whether it arrived. What can be looked up is, so that it has
        one visible effect. Raises DeliveryError.
        """


@dataclass(frozen=True, kw_only=True)
class Interest:
    """What a channel wants to hear of."""

    topics: frozenset[Topic]
    level: Severity
    causes: Mapping[str, Cause] = field(default_factory=dict)

    def wanted(self, notice: Notice) -> bool:
        """Whether the channel is told of it: it asked for it, or it was told of what is over now."""
        return self._asked_for(notice) or bool(self.over(notice))

    def opens(self, notice: Notice) -> str | None:
        """The cause that the channel is told of by it."""
        return notice.opens if self._asked_for(notice) else None

    def over(self, notice: Notice) -> tuple[str, ...]:
        """The causes that the channel was told of and that are over for it.

        Also one that goes on but is less than the channel asked for by now.
        """
        ended = list(notice.closes)
        if notice.opens is not None and notice.eases and not self._asked_for(notice):
            ended.append(notice.opens)
        return tuple(cause for cause in ended if cause in self.causes)

    def _asked_for(self, notice: Notice) -> bool:
        return not notice.quiet and notice.topic in self.topics and _RANKS[notice.severity] >= _RANKS[self.level]
