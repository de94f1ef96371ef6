"""A monthly review as Markdown, in Japanese or English."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, Trigger
from scpln_backup.rules.markdown import code, plain, table
from scpln_backup.rules.report import seconds_between
from scpln_backup.rules.review_follow_up import follow_up
from scpln_backup.rules.review_texts import TEXTS
from scpln_backup.rules.review_words import Words, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import tzinfo

    from scpln_backup.model import Incident
    from scpln_backup.rules.review import Review, Run

_ROWS = 50


def markdown(
    review: Review, *, locale: str, zone: tzinfo, size: Callable[[int], str], duration: Callable[[float], str]
) -> str:
    """The review in Markdown; "ja" is Japanese, others English. Times are local to `zone`.

    `size` and `duration` (support.text) give bytes and seconds as people read them, in English.
    """
    words = Words(TEXTS["ja" if locale == "ja" else "en"], zone, size=size, duration=duration)
    return _Draft(review, words).text()


class _Draft:
    """One review in one language."""

    def __init__(self, review: Review, words: Words) -> None:
        self._review = review
        self._facts = review.facts
        self._words = words
        self._texts = words.texts

    def text(self) -> str:
        t, facts = self._texts, self._facts
        month = t.month.format(year=facts.month[:4], number=facts.month[5:])
        title = t.title.format(month=month, database=facts.database, environment=facts.environment)
        period = t.period.format(
            begin=self._words.at(facts.begin), end=self._words.at(facts.end), zone=facts.zone_name, host=facts.host
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
        blocks = [f"# {title}", f"{period}  \n{t.made.format(at=self._words.at(facts.now))}"]
        if self._review.is_partial:
            blocks.append(f"> {t.partial}")
        for heading, section in sections:
            blocks += [f"## {heading}", *section]
        return "\n\n".join(blocks) + "\n"

    def _follow_up(self) -> Iterator[str]:
        t = self._texts
        things = follow_up(self._review, self._words)
        if not things:
            yield t.nothing
            return
        yield f"**{t.things.format(count=len(things))}**"
        yield "\n".join(f"- {thing}" for thing in things)

    def _runs(self) -> Iterator[str]:
        t, review = self._texts, self._review
        if not review.runs:
            yield t.no_runs
        else:
            yield self._counts()
        others = [run for run in review.runs if run.record.outcome is not Outcome.SUCCESS]
        if others:
            yield f"### {t.not_good}"
            heading = (t.started, t.trigger, t.outcome, t.why, t.tickets)
            yield from self._rows(heading, [self._run(run) for run in others])

    def _counts(self) -> str:
        t, review = self._texts, self._review
        heading = (t.trigger, *(t.outcomes[outcome] for outcome in Outcome), t.total)
        rows = [
            _count(t.triggers[trigger], [run for run in review.runs if run.record.trigger is trigger])
            for trigger in Trigger
            if any(run.record.trigger is trigger for run in review.runs)
        ]
        rows += [_count(t.total, review.runs), _count(t.before, review.runs_before)]
        return table(heading, rows, right=range(1, len(heading)))

    def _run(self, run: Run) -> tuple[str, ...]:
        t, record = self._texts, run.record
        outcome = t.interrupted if record.interrupted else t.outcomes[record.outcome]
        tickets = ", ".join(run.tickets)
        if not tickets:
            tickets = t.no_ticket if record.outcome is Outcome.FAILED else t.none
        return (
            self._words.at(record.started_at),
            t.triggers[record.trigger],
            outcome,
            self._words.said(record.error),
            tickets,
        )

    def _figures(self) -> Iterator[str]:
        t, now, before = self._texts, self._review.figures, self._review.before
        rows = [
            self._figure(t.median_seconds, now.median_seconds, before.median_seconds, self._words.duration),
            self._figure(t.longest_seconds, now.longest_seconds, before.longest_seconds, self._words.duration),
            self._figure(
                t.longest_blocked, now.longest_blocked_seconds, before.longest_blocked_seconds, self._words.duration
            ),
            self._figure(t.median_raw, now.median_raw_bytes, before.median_raw_bytes, self._words.bytes),
            self._figure(t.last_raw, now.last_raw_bytes, before.last_raw_bytes, self._words.bytes),
            self._figure(t.median_artifact, now.median_artifact_bytes, before.median_artifact_bytes, self._words.bytes),
            self._figure(t.restore_seconds, now.restore_seconds, before.restore_seconds, self._words.duration),
        ]
        yield table((t.figure, t.this_month, t.before, t.change), rows, right=(1, 2, 3))

    def _figure(
        self, label: str, now: float | None, before: float | None, said: Callable[[float], str]
    ) -> tuple[str, ...]:
        change = percent(now, before) if now is not None and before else "-"
        return label, *("-" if value is None else said(value) for value in (now, before)), change

    def _gaps(self) -> Iterator[str]:
        t, review, gap = self._texts, self._review, self._review.longest_gap
        lines = []
        if gap is not None:
            text = t.longest_gap_open if gap.is_open else t.longest_gap
            duration = self._words.duration(gap.seconds)
            lines.append(text.format(duration=duration, begin=self._words.at(gap.begin), end=self._words.at(gap.end)))
        missed = self._words.listed(review.missed)
        text = t.slots_missed if review.missed else t.slots
        lines.append(text.format(slots=review.slots, count=len(review.missed), at=missed))
        yield "\n".join(f"- {line}" for line in lines)

    def _drills(self) -> Iterator[str]:
        t, drills = self._texts, self._review.drills
        if not drills:
            yield t.no_drills
            return
        longest = self._review.figures.restore_seconds
        if longest is not None:
            yield t.measured.format(duration=self._words.duration(longest))
        heading = (t.started, t.trigger, t.outcome, t.artifact, t.restore_time, t.smoke_test, t.why)
        rows = [
            (
                self._words.at(drill.started_at),
                t.triggers[drill.trigger],
                t.outcomes[drill.outcome],
                code(drill.artifact) if drill.artifact else "-",
                "-" if drill.restore_seconds is None else self._words.duration(drill.restore_seconds),
                "-" if drill.smoke_exit_code is None else str(drill.smoke_exit_code),
                self._words.said(drill.error) if drill.error else "",
            )
            for drill in drills
        ]
        yield from self._rows(heading, rows)

    def _restores(self) -> Iterator[str]:
        t, facts = self._texts, self._facts
        if not facts.restores:
            yield t.no_restores
        else:
            columns = (t.started, t.user, t.artifact, t.outcome, t.lost_rows, t.why)
            rows = [
                (
                    self._words.at(restore.started_at),
                    restore.user or t.unknown,
                    code(restore.artifact),
                    t.restore_outcomes[restore.outcome],
                    "-" if restore.lost_rows is None else f"{restore.lost_rows:,}",
                    self._words.said(restore.error) if restore.error else "",
                )
                for restore in facts.restores
            ]
            yield from self._rows(columns, rows)
        if facts.incidents:
            heading = (t.incident, t.opened, t.deadline, t.closed, "")
            yield from self._rows(heading, [self._incident(incident) for incident in facts.incidents])

    def _incident(self, incident: Incident) -> tuple[str, ...]:
        t = self._texts
        is_late = incident in self._review.late_incidents
        closed = self._words.at(incident.closed_at) if incident.closed_at is not None else t.not_closed
        kept = t.late.format(late=self._late(incident)) if is_late else t.kept
        opened, deadline = self._words.at(incident.opened_at), self._words.at(incident.deadline_at)
        return f"#{incident.id}", opened, deadline, closed, kept

    def _late(self, incident: Incident) -> str:
        return self._words.duration(seconds_between(incident.deadline_at, incident.closed_at or self._facts.now))

    def _by_hand(self) -> Iterator[str]:
        t, deeds = self._texts, self._facts.deeds
        if not deeds:
            yield t.nothing_by_hand
            return
        rows = [
            (
                self._words.at(deed.at),
                deed.actor or t.somebody,
                t.acts[deed.act],
                code(deed.detail) if deed.detail else "",
            )
            for deed in deeds
        ]
        yield from self._rows((t.at, t.who, t.what, t.detail), rows)

    def _deletions(self) -> Iterator[str]:
        t = self._texts
        by_reason: defaultdict[str, list[str]] = defaultdict(list)
        for deletion in self._facts.deletions:
            by_reason[deletion.reason].append(deletion.name)
        if not by_reason:
            yield t.no_deletions
            return
        rows = [
            (str(len(names)), reason, " - ".join(code(name) for name in dict.fromkeys((names[0], names[-1]))))
            for reason, names in by_reason.items()
        ]
        yield from self._rows((t.count, t.reason, t.names), rows, right=(0,))

    def _besides(self) -> Iterator[str]:
        t, facts = self._texts, self._facts
        lines = [t.daemon_starts.format(count=facts.daemon_starts)]
        for notable in facts.notables[:_ROWS]:
            detail = f"{t.colon}{self._words.said(notable.detail)}" if notable.detail else ""
            lines.append(f"{self._words.at(notable.at)} {t.troubles[notable.trouble]}{detail}")
        if len(facts.notables) > _ROWS:
            lines.append(t.and_more.format(count=len(facts.notables) - _ROWS))
        yield "\n".join(f"- {plain(line)}" for line in lines)

    def _log(self) -> Iterator[str]:
        t, chain = self._texts, self._facts.chain
        if chain.checked and chain.first_at is not None:
            text = t.log_whole if chain.ok else t.log_broken
            at = self._words.at(chain.first_at)
            lines = [text.format(first=chain.first_seq, last=chain.last_seq, at=at, checked=chain.checked)]
            lines += [f"  - {plain(problem)}" for problem in chain.problems[:_ROWS]]
            if chain.ok:
                lines.append(t.log_end.format(seq=chain.last_seq, hash=code(chain.last_hash or "")))
            yield "\n".join(line if line.startswith(" ") else f"- {line}" for line in lines)
        elif chain.ok:
            yield t.log_empty
        else:
            yield "\n".join(f"- {plain(t.todo_no_log.format(problem=problem))}" for problem in chain.problems[:_ROWS])
        if self._facts.disagreements:
            yield f"### {t.disagreement}"
            rows = [
                (self._words.at(one.started_at), t.told[one.what], self._outcome(one.catalog), self._outcome(one.log))
                for one in self._facts.disagreements
            ]
            yield from self._rows((t.started, t.what, t.in_catalog, t.in_log), rows)

    def _outcome(self, outcome: str | None) -> str:
        t = self._texts
        known = [*t.outcomes.items(), *t.restore_outcomes.items()]
        return t.not_there if outcome is None else next((words for name, words in known if name == outcome), outcome)

    def _rows(self, heading: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
        """A table that stays readable in a month in which everything failed."""
        yield table(heading, rows[:_ROWS], right)
        if len(rows) > _ROWS:
            yield self._texts.and_more.format(count=len(rows) - _ROWS)


def _count(label: str, runs: Sequence[Run]) -> tuple[str, ...]:
    counted = Counter(run.record.outcome for run in runs)
    return label, *(str(counted[outcome]) for outcome in Outcome), str(len(runs))
