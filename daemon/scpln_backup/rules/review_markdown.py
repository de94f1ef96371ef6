"""A monthly review as Markdown, in Japanese or English."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, RestoreOutcome, Trigger
from scpln_backup.rules.markdown import code, plain, table
from scpln_backup.rules.report import seconds_between
from scpln_backup.rules.review import Review
from scpln_backup.rules.review_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.model import Incident
    from scpln_backup.rules.review import Figures, Run
    from scpln_backup.rules.review_texts import Texts

_LISTED = 10
_ROWS = 50
_MINUS = "\N{MINUS SIGN}"
_HOUR = 3600


def markdown(
    review: Review, *, locale: str, zone: tzinfo, size: Callable[[int], str], duration: Callable[[float], str]
) -> str:
    """The review in Markdown; "ja" is Japanese, others English. Times are local to `zone`.

    `size` and `duration` (support.text) give bytes and seconds as people read them, in English.
    """
    return _Draft(review, TEXTS["ja" if locale == "ja" else "en"], zone, size, duration).text()


class _Draft:
    """One review in one language."""

    def __init__(
        self,
        review: Review,
        texts: Texts,
        zone: tzinfo,
        size: Callable[[int], str],
        duration: Callable[[float], str],
    ) -> None:
        self._review = review
        self._facts = review.facts
        self._texts = texts
        self._zone = zone
        self._size = size
        self._in_english = duration

    def text(self) -> str:
        t, facts = self._texts, self._facts
        title = t.title.format(month=facts.month, database=facts.database, environment=facts.environment)
        period = t.period.format(
            begin=self._at(facts.begin), end=self._at(facts.end), zone=facts.zone_name, host=facts.host
        )
        sections = (
            (t.follow_up, self._follow_up()),
            (t.runs, self._runs()),
            (t.figures, self._figures()),
            (t.gaps, self._gaps()),
            (t.drills, self._drills()),
            (t.restores, self._restores()),
            (t.by_hand, self._by_hand()),
            (t.deletions, self._deletions()),
            (t.besides, self._besides()),
            (t.log, self._log()),
        )
        blocks = [f"# {title}", f"{period}  \n{t.made.format(at=self._at(facts.now))}"]
        if self._review.is_partial:
            blocks.append(f"> {t.partial}")
        for heading, section in sections:
            blocks += [f"## {heading}", *section]
        return "\n\n".join(blocks) + "\n"

    # What is to be done

    def _follow_up(self) -> Iterator[str]:
        t = self._texts
        things = [plain(thing) for thing in self._things()]
        if not things:
            yield t.nothing
            return
        yield f"**{t.things.format(count=len(things))}**"
        yield "\n".join(f"- {thing}" for thing in things)

    def _things(self) -> Iterator[str]:
        t, review, facts = self._texts, self._review, self._facts
        for run in review.unticketed:
            yield t.todo_unticketed.format(at=self._at(run.record.started_at), error=self._said(run.record.error))
        if review.missed:
            yield t.todo_missed.format(
                count=len(review.missed), slots=review.slots, at=self._listed([self._at(at) for at in review.missed])
            )
        yield from self._gap_to_follow_up()
        yield from self._drill_to_follow_up()
        for restore in facts.restores:
            if restore.outcome is not RestoreOutcome.SUCCESS:
                outcome = t.restore_outcomes[restore.outcome]
                said = self._said(restore.error)
                yield t.todo_restore.format(at=self._at(restore.started_at), outcome=outcome, error=said)
        for incident in review.late_incidents:
            if incident.closed_at is None:
                yield t.todo_incident_open.format(id=incident.id, deadline=self._at(incident.deadline_at))
            else:
                yield t.todo_incident_late.format(id=incident.id, late=self._late(incident))
        yield from self._log_to_follow_up()

    def _gap_to_follow_up(self) -> Iterator[str]:
        t, gap, hours = self._texts, self._review.longest_gap, self._facts.overdue_hours
        if self._review.figures.runs and not self._review.figures.good:
            yield t.todo_no_backup
        if gap is not None and gap.seconds > hours * _HOUR + self._grace():
            end = self._at(gap.end) if gap.end is not None else self._at(min(self._facts.now, self._facts.end))
            yield t.todo_gap.format(
                duration=self._duration(gap.seconds), begin=self._at(gap.begin), end=end, hours=hours
            )

    def _grace(self) -> float:
        """A nightly run that takes a little longer than the one before is no gap."""
        return max(self._review.figures.longest_seconds or 0.0, _HOUR)
