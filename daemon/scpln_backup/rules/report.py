"""The report of an incident: recovery time, scope and prevention (section 5 of the procedure), as Markdown.

What the records know is filled in; what only people can write has a line that asks for it until they have.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from scpln_backup.model import RestoreOutcome
from scpln_backup.rules import loss as losses
from scpln_backup.rules.report_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.model import Incident, Loss, RebuildRecord, RestoreRecord, Step, TableFacts, TableLoss
    from scpln_backup.rules.report_texts import Texts

_TENTHS_BELOW = 10
_UNIT_SECONDS = (86_400, 3_600, 60, 1)
_STOP = "stop"
_UP = ("start", "health probe")


class Part(StrEnum):
    """What only people can write."""

    SCOPE = "scope"
    PREVENTION = "prevention"


def missing(incident: Incident) -> tuple[Part, ...]:
    """The parts that people have not written yet."""
    written = {Part.SCOPE: incident.scope, Part.PREVENTION: incident.prevention}
    return tuple(part for part, text in written.items() if not (text or "").strip())


def seconds_between(earlier: datetime, later: datetime) -> float:
    """In fact, not by the clock on the wall, which two times of one zone would be subtracted by."""
    return (later.astimezone(UTC) - earlier.astimezone(UTC)).total_seconds()


def service_up_at(restore: RestoreRecord) -> datetime | None:
    """When the service ran again: the end of the last start or probe; of the restore, where no unit was started.

    None when the restore left it down.
    """
    if restore.outcome is not RestoreOutcome.SUCCESS:
        return None
    ends = [_end(step) for step in restore.steps if _is(step, *_UP)]
    return max(ends, key=lambda at: at.timestamp()) if ends else restore.finished_at


def downtime_seconds(restore: RestoreRecord) -> float | None:
    """From the beginning of the first stop to the service's return; None when nothing was stopped, or is not back."""
    up = service_up_at(restore)
    stops = [step.at for step in restore.steps if _is(step, _STOP)]
    if up is None or not stops:
        return None
    return seconds_between(min(stops, key=lambda at: at.timestamp()), up)


def draft(incident: Incident, *, database: str, environment: str, locale: str, zone: tzinfo, now: datetime) -> str:
    """The report in Markdown; "ja" is Japanese, others English. Times are local to `zone`.

    `now` only decides whether the deadline of an open incident has passed.
    """
    return _Draft(incident, TEXTS["ja" if locale == "ja" else "en"], locale, zone, now).text(database, environment)


class _Draft:
    """One report in one language."""

    def __init__(self, incident: Incident, texts: Texts, locale: str, zone: tzinfo, now: datetime) -> None:
        self._incident = incident
        self._restore = incident.restore
        self._texts = texts
        self._locale = locale
        self._zone = zone
        self._now = now

    def text(self, database: str, environment: str) -> str:
        t = self._texts
        blocks = [
            f"# {t.title.format(id=self._incident.id, database=database, environment=environment)}",
            *([f"> {t.draft.format(mark=f'**{t.to_write}**')}"] if missing(self._incident) else []),
            self._facts(f"{database}{t.bracketed.format(environment)}"),
            f"## {t.recovery}",
            self._recovery(),
            f"## {t.scope}",
            self._written(Part.SCOPE, self._incident.scope, t.scope_wanted),
            f"### {t.loss}",
            *self._loss(self._restore.loss),
            f"### {t.rebuild}",
            *self._rebuilds(self._incident.rebuilds),
            f"## {t.prevention}",
            self._written(Part.PREVENTION, self._incident.prevention, t.prevention_wanted),
            f"## {t.timeline}",
            _table((t.time, t.event, t.took, t.detail), self._timeline()),
        ]
        return "\n\n".join(blocks) + "\n"

    def _facts(self, database: str) -> str:
        t, restore = self._texts, self._restore
        taken = t.bracketed.format(t.taken_at.format(self._at(restore.taken_at)))
        rows = [
            (t.database, f"{database} {_code(restore.target)}"),
            (t.restored_from, f"{_code(restore.artifact)}{taken}"),
            (t.sha256, _code(restore.artifact_sha256) if restore.artifact_sha256 else t.unknown),
            (t.outcome, self._outcome(restore.outcome)),
            (t.user, restore.user or t.unknown),
            (t.set_aside, _code(restore.set_aside) if restore.set_aside else t.nothing_set_aside),
        ]
        if restore.error:
            rows.append((t.error, _code(restore.error)))
        return _table((t.item, t.content), rows)

    def _recovery(self) -> str:
        t, incident = self._texts, self._incident
        down = downtime_seconds(self._restore)
        lines = [
            (t.service_up, self._since_start(service_up_at(self._restore), t.unknown)),
            *([(t.service_down_for, self._duration(down))] if down is not None else []),
            (t.closed, self._since_start(incident.closed_at, t.not_closed)),
            (t.deadline, f"{self._at(incident.deadline_at)}{t.bracketed.format(self._deadline_kept())}"),
        ]
        return "\n".join(f"- {label}{t.colon}{text}" for label, text in lines) + f"\n\n{t.counted}"

    def _deadline_kept(self) -> str:
        t, incident = self._texts, self._incident
        if incident.closed_at is None:
            return t.overdue if seconds_between(incident.deadline_at, self._now) > 0 else t.pending
        spare = seconds_between(incident.closed_at, incident.deadline_at)
        return t.met.format(self._duration(spare)) if spare >= 0 else t.missed.format(self._duration(-spare))

    def _written(self, part: Part, text: str | None, wanted: str) -> str:
        if text and text.strip():
            return text.strip()
        command = f"scpln-backup incident note {self._incident.id} --{part} TEXT"
        return f"**{self._texts.to_write}** {wanted}{self._texts.bracketed.format(_code(command))}"

    def _loss(self, loss: Loss | None) -> Iterator[str]:
        t = self._texts
        if loss is None:
            yield t.loss_unknown
            return
        yield "\n".join(f"- {_plain(sentence)}" for sentence in losses.words(loss, self._locale, self._zone))
        if not any(table.before for table in loss.tables):
            return
        changed = [table for table in loss.tables if _differs(table)]
        if changed:
            heading = (t.table, t.before, t.after, t.lost, t.newest_before, t.newest_after)
            yield _table(heading, [self._table_loss(table) for table in changed], right=(1, 2, 3))
        if len(changed) < len(loss.tables):
            yield t.other_tables.format(len(loss.tables) - len(changed))

    def _table_loss(self, table: TableLoss) -> tuple[str, ...]:
        before, after = table.before, table.after
        lost = table.lost_rows
        least = before is not None and before.at_least
        return (
            _code(table.name),
            self._rows(before),
            self._rows(after),
            self._texts.unknown if lost is None else _number(lost, at_least=least),
            self._newest(before),
            self._newest(after),
        )

    def _rows(self, facts: TableFacts | None) -> str:
        if facts is None:
            return "-"
        return self._texts.unknown if facts.rows is None else _number(facts.rows, at_least=facts.at_least)

    def _newest(self, facts: TableFacts | None) -> str:
        return "-" if facts is None or facts.newest is None else self._at(facts.newest)

    def _rebuilds(self, rebuilds: Sequence[RebuildRecord]) -> Iterator[str]:
        t, loss = self._texts, self._restore.loss
        if rebuilds:
            heading = (t.started, "--since", t.outcome, t.exit_code, t.took, t.output)
            yield _table(heading, [self._rebuild(rebuild) for rebuild in rebuilds], right=(3,))
            return
        yield t.no_rebuild
        if loss is not None and (loss.problem or losses.lost_rows(loss) or losses.newest_lost(loss)):
            command = f"scpln-backup rebuild --since {losses.since(loss, self._zone)}"
            yield t.rebuild_since.format(command=_code(command))

    def _rebuild(self, rebuild: RebuildRecord) -> tuple[str, ...]:
        ended = rebuild.finished_at
        return (
            self._at(rebuild.started_at),
            rebuild.since,
            self._texts.running if ended is None else self._outcome(rebuild.outcome),
            "-" if rebuild.exit_code is None else str(rebuild.exit_code),
            "-" if ended is None else self._duration(seconds_between(rebuild.started_at, ended)),
            _code(rebuild.output) if rebuild.output else "-",
        )

    def _timeline(self) -> list[tuple[str, ...]]:
        """What happened, by time; at the same time, in this order."""
        events = [*self._restore_events(), *self._rebuild_events()]
        events.append((self._incident.opened_at, self._texts.opened, None, None))
        if self._incident.closed_at is not None:
            events.append((self._incident.closed_at, self._texts.closed, None, None))
        events.sort(key=lambda event: event[0].timestamp())
        return [
            (self._at(at), event, "" if took is None else self._duration(took), "" if detail is None else _code(detail))
            for at, event, took, detail in events
        ]

    def _restore_events(self) -> Iterator[_Event]:
        t, restore = self._texts, self._restore
        yield restore.started_at, t.restore_started, None, restore.artifact
        for step in restore.steps:
            yield step.at, self._step(step.name), step.seconds, step.detail
        if restore.finished_at is not None:
            took = seconds_between(restore.started_at, restore.finished_at)
            yield restore.finished_at, t.restore_ended.format(self._outcome(restore.outcome)), took, restore.error

    def _rebuild_events(self) -> Iterator[_Event]:
        t = self._texts
        for rebuild in self._incident.rebuilds:
            yield rebuild.started_at, t.rebuild_started, None, f"--since {rebuild.since}"
            if rebuild.finished_at is not None:
                took = seconds_between(rebuild.started_at, rebuild.finished_at)
                yield rebuild.finished_at, t.rebuild_ended.format(self._outcome(rebuild.outcome)), took, rebuild.error

    def _step(self, name: str) -> str:
        for beginning, words in self._texts.steps.items():
            if name == beginning or name.startswith(f"{beginning} "):
                rest = name.removeprefix(beginning).strip()
                return f"{words}{self._texts.bracketed.format(rest)}" if rest else words
        return name

    def _outcome(self, outcome: str) -> str:
        return self._texts.outcomes.get(outcome, outcome)

    def _since_start(self, at: datetime | None, otherwise: str) -> str:
        if at is None:
            return otherwise
        passed = self._duration(seconds_between(self._restore.started_at, at))
        return f"{self._at(at)}{self._texts.bracketed.format(self._texts.after_start.format(passed))}"

    def _at(self, at: datetime | None) -> str:
        return self._texts.unknown if at is None else at.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")

    def _duration(self, seconds: float) -> str:
        """At most two units, the largest ones that count; a clock that was set back gives no duration."""
        t = self._texts
        if seconds < 0:
            return t.unknown
        if round(seconds, 1) < _TENTHS_BELOW:
            return f"{seconds:.1f}{t.units[-1]}"
        left = round(seconds)
        parts = []
        for unit_seconds, unit in zip(_UNIT_SECONDS, t.units, strict=True):
            count, left = divmod(left, unit_seconds)
            parts.append((count, f"{count}{unit}"))
        first = next(place for place, (count, _) in enumerate(parts) if count)
        return t.unit_gap.join(text for count, text in parts[first : first + 2] if count)


if TYPE_CHECKING:
    _Event = tuple[datetime, str, float | None, str | None]


def _is(step: Step, *beginnings: str) -> bool:
    return any(step.name == beginning or step.name.startswith(f"{beginning} ") for beginning in beginnings)


def _end(step: Step) -> datetime:
    from_start = timedelta(seconds=step.seconds)
    return (step.at.astimezone(UTC) + from_start).astimezone(step.at.tzinfo)


def _differs(table: TableLoss) -> bool:
    """Whether the table is worth a line: other rows, another newest time, or something that could not be read."""
    before, after = table.before, table.after
    if before is None or after is None:
        return True
    unread = any(facts.rows is None or facts.at_least or facts.problem for facts in (before, after))
    return bool(unread) or (before.rows, before.newest) != (after.rows, after.newest)


def _number(count: int, *, at_least: bool) -> str:
    return f"{'≥ ' if at_least else ''}{count:,}"


def _plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _code(text: str) -> str:
    """A code span; a text with backticks in it needs longer ones around it (CommonMark 6.1)."""
    text = _plain(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{fence} {text} {fence}"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table; the columns `right` are numbers. A bar in a cell would end it, in a code span too (GFM 4.10)."""
    rule = ["---:" if column in right else "---" for column in range(len(heading))]
    body = [[_plain(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *body))
