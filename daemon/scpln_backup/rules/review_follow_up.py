"""What is to be followed up after a month."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, RestoreOutcome
from scpln_backup.rules.markdown import plain
from scpln_backup.rules.report import seconds_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scpln_backup.rules.review import Review
    from scpln_backup.rules.review_words import Words

_LISTED = 10


def follow_up(review: Review, words: Words) -> list[str]:
    """One line each, the gravest first."""
    parts = (_log, _gap, _runs, _drills, _ways_back)
    return [plain(thing) for part in parts for thing in part(review, words)]


def _log(review: Review, words: Words) -> Iterator[str]:
    t, facts, chain = words.texts, review.facts, review.facts.chain
    for problem in chain.problems[:_LISTED]:
        yield (t.todo_chain if chain.checked else t.todo_no_log).format(problem=problem)
    if len(chain.problems) > _LISTED:
        yield t.todo_chain_more.format(count=len(chain.problems) - _LISTED)
    if review.log_begins_late and chain.first_at is not None:
        yield t.todo_log_begins.format(at=words.at(chain.first_at))
    if facts.disagreements:
        yield t.todo_disagreement.format(count=len(facts.disagreements))


def _gap(review: Review, words: Words) -> Iterator[str]:
    t, gap = words.texts, review.longest_gap
    if review.figures.runs and not review.figures.good:
        yield t.todo_no_backup
    if gap is not None and review.is_gap_too_long:
        yield t.todo_gap.format(
            duration=words.duration(gap.seconds),
            begin=words.at(gap.begin),
            end=words.at(gap.end),
            hours=review.facts.overdue_hours,
        )


def _runs(review: Review, words: Words) -> Iterator[str]:
    t = words.texts
    for run in review.unticketed[:_LISTED]:
        yield t.todo_unticketed.format(at=words.at(run.record.started_at), error=words.said(run.record.error))
    if len(review.unticketed) > _LISTED:
        yield t.todo_unticketed_more.format(count=len(review.unticketed) - _LISTED)
    if review.missed:
        at = words.listed(review.missed)
        yield t.todo_missed.format(count=len(review.missed), slots=review.slots, at=at)


def _drills(review: Review, words: Words) -> Iterator[str]:
    t, drills = words.texts, review.drills
    if drills and drills[-1].outcome is Outcome.FAILED:
        last = drills[-1]
        yield t.todo_drill_failed.format(at=words.at(last.started_at), error=words.said(last.error))
    elif not any(drill.outcome in (Outcome.SUCCESS, Outcome.DEGRADED) for drill in drills):
        yield t.todo_no_drill


def _ways_back(review: Review, words: Words) -> Iterator[str]:
    t, facts = words.texts, review.facts
    for restore in facts.restores:
        if restore.outcome is not RestoreOutcome.SUCCESS:
            outcome, error = t.restore_outcomes[restore.outcome], words.said(restore.error)
            yield t.todo_restore.format(at=words.at(restore.started_at), outcome=outcome, error=error)
    for incident in review.late_incidents:
        if incident.closed_at is None:
            yield t.todo_incident_open.format(id=incident.id, deadline=words.at(incident.deadline_at))
        else:
            late = words.duration(seconds_between(incident.deadline_at, incident.closed_at))
            yield t.todo_incident_late.format(id=incident.id, late=late)
