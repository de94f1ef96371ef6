"""What the sentences of every message need: one language, one clock, and how things stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.config.schema import Locale
from scpln_backup.model import State
from scpln_backup.observers.wording import figures
from scpln_backup.observers.wording.english import ENGLISH
from scpln_backup.observers.wording.japanese import JAPANESE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from scpln_backup.model import Artifact
    from scpln_backup.observers.message import Surroundings
    from scpln_backup.observers.wording.texts import Texts

TEXTS: Mapping[Locale, Texts] = {Locale.EN: ENGLISH, Locale.JA: JAPANESE}

_REASON_LENGTH = 80

Fact = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Said:
    """A message before it has a headline: `what` follows the name of the database in it, and is its line in a digest.

    `lists`: the newest artifacts are listed.
    """

    what: str
    sentences: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    lists: bool = False
    document: str | None = None
    over: bool = False


@dataclass(frozen=True)
class Scene:
    """Surroundings with the words for them."""

    around: Surroundings

    @property
    def texts(self) -> Texts:
        return TEXTS[self.around.locale]

    def headline(self, what: str) -> str:
        return self.texts.headline.format(
            database=self.around.database, environment=self.around.environment, what=one_line(what)
        )

    def at(self, moment: datetime) -> str:
        return figures.local(moment, self.around.zone)

    def lasting(self, seconds: float) -> str:
        return figures.duration(seconds, self.texts)

    def between(self, start: datetime, end: datetime) -> str:
        return self.lasting(end.timestamp() - start.timestamp())

    def runs(self, count: int) -> str:
        return (self.texts.one_run if count == 1 else self.texts.many_runs).format(count=count)

    def error(self, error: str | None) -> str:
        """The sentence that gives an error, whole and on one line."""
        return self.texts.error.format(error=self.said(error))

    def said(self, error: str | None) -> str:
        return one_line(error or self.texts.no_error)

    def reason(self, error: str | None) -> str:
        """The beginning of an error, for a headline: what and where, without what to do about it."""
        reason = self.said(error).split("; ")[0]
        return reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 1] + "…"

    def newest_good(self, but: str | None = None) -> Artifact | None:
        """The newest verified artifact that is not named `but`."""
        good = [found for found in self.around.artifacts if found.state is State.VERIFIED and found.name != but]
        return max(good, key=lambda artifact: artifact.taken_at.timestamp(), default=None)

    def last_good(self, but: str | None = None) -> str:
        """The sentence that says what there is to go back to."""
        good = self.newest_good(but)
        if good is None:
            return self.texts.no_good
        age = self.between(good.taken_at, self.around.now)
        return self.texts.last_good.format(name=good.name, at=self.at(good.taken_at), age=age)

    def outlook(self) -> tuple[Fact, ...]:
        """When the next run is, and where to look."""
        labels, next_run = self.texts.labels, self.around.next_run_at
        return (
            (labels.next_run, self.texts.none_planned if next_run is None else self.at(next_run)),
            *self.where_to_look(),
        )

    def where_to_look(self) -> tuple[Fact, ...]:
        page = self.around.page
        return () if page is None else ((self.texts.labels.page, page),)


def one_line(text: str) -> str:
    return " ".join(text.split())
