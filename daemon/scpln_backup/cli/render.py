"""What people read in a terminal: tables and sentences."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from scpln_backup.model import Outcome, Stage, State
from scpln_backup.rules.health import Level
from scpln_backup.rules.retention import Action
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from rich.console import Console
    from rich.table import Table

    from scpln_backup.model import Artifact, RunRecord
    from scpln_backup.operations.status import Status
    from scpln_backup.operations.sweep import Sweep
    from scpln_backup.operations.verify import Verification
    from scpln_backup.support.locks import Holder

_MINUTE = "%Y-%m-%d %H:%M"
_SECOND = "%Y-%m-%d %H:%M:%S %Z"
_PIPE_WIDTH = 200  # where nobody's terminal sets a width, a name must not be cut

_STATE_STYLE = {
    State.VERIFIED: "green",
    State.SUSPECT: "yellow",
    State.UNVERIFIED: "",
    State.CORRUPT: "bold red",
}
_LEVEL_COLOUR = {Level.HEALTHY: "green", Level.WARNING: "yellow", Level.CRITICAL: "red"}
_STAGES_SHOWN = (Stage.SNAPSHOT, Stage.CHECK, Stage.COMPRESS, Stage.PROVE)


def _console() -> Console:
    """For texts as they are: a reason may hold brackets, such as those of [backup] preset."""
    from rich.console import Console  # noqa: PLC0415 - a backup, and what is for machines, needs none

    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def run(record: RunRecord) -> None:
    """One finished backup."""
    if record.artifact is None:
        click.echo(
            f"backup {record.outcome} after {human_duration(record.duration_seconds or 0)}; no artifact was made"
        )
        return
    click.echo(f"{record.artifact}  {record.outcome}")
    raw, stored = record.raw_bytes or 0, record.artifact_bytes or 0
    click.echo(f"  size      {human_bytes(stored)}, from {human_bytes(raw)}")
    if record.reused_from is not None:
        click.echo(f"  database  unchanged since {record.reused_from}, whose bytes were used again")
    stages = ", ".join(
        f"{stage} {human_duration(record.stage_seconds[stage])}"
        for stage in _STAGES_SHOWN
        if stage in record.stage_seconds
    )
    click.echo(f"  time      {human_duration(record.duration_seconds or 0)} ({stages})")
    wal = f"; the -wal grew by {human_bytes(record.wal_growth_bytes)} meanwhile" if record.wal_growth_bytes else ""
    click.echo(f"  writers   waited at most {1000 * (record.writer_blocked_seconds or 0):.0f} ms{wal}")
    click.echo(f"  sha256    {record.sha256}")


def artifacts(found: Sequence[Artifact], root: Path, zone: ZoneInfo) -> None:
    """`list`, newest first, with a total."""
    if not found:
        click.echo(f"there are no artifacts under {root} yet; make one with: scpln-backup backup")
        return
    from rich.text import Text  # noqa: PLC0415 - as above

    table = _table("NAME", "TAKEN", "SIZE", "DATABASE", "STATE", "", right=("SIZE", "DATABASE"))
    for artifact in found:
        remarks = [remark for remark in ("pinned" if artifact.pinned else "", _trouble(artifact)) if remark]
        table.add_row(
            artifact.name,
            artifact.taken_at.astimezone(zone).strftime(_MINUTE),
            human_bytes(artifact.bytes),
            human_bytes(artifact.raw_bytes) if artifact.raw_bytes is not None else "-",
            Text(artifact.state, style=_STATE_STYLE[artifact.state]),
            "; ".join(remarks),
        )
    _console().print(table)
    total = human_bytes(sum(artifact.bytes for artifact in found))
    click.echo(f"{len(found)} {_plural('artifact', len(found))}, {total}, under {root}")


def _trouble(artifact: Artifact) -> str:
    reason = artifact.manifest.state_reason if artifact.manifest is not None else None
    return artifact.problem or reason or ""


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def verification(result: Verification) -> None:
    verdict = click.style("ok", fg="green") if result.ok else click.style("BAD", fg="red", bold=True)
    click.echo(f"{result.name}  {verdict}{'  ' + result.error if result.error else ''}")


def sweep(result: Sweep, *, dry_run: bool, explain: bool) -> None:
    """What retention decided: the deleted ones, and with `explain` all of them with their reasons."""
    doomed = [verdict for verdict in result.verdicts if verdict.action is Action.DELETE]
    if explain and result.verdicts:
        table = _table("NAME", "ACTION", "REASON")
        for verdict in result.verdicts:
            table.add_row(verdict.name, verdict.action, verdict.reason)
        _console().print(table)
    else:
        for verdict in doomed:
            click.echo(f"{verdict.name}  {verdict.reason}")
    count = len(doomed) if dry_run else len(result.deleted)
    done = "would be deleted" if dry_run else "deleted"
    click.echo(f"{count} {_plural('artifact', count)} {done}, {len(result.verdicts) - len(doomed)} kept")


def status(found: Status, daemon: Holder | None, root: Path, zone: ZoneInfo) -> None:
    """One look, for people."""
    level = found.health.level
    head = click.style(level.upper(), fg=_LEVEL_COLOUR[level], bold=level is Level.CRITICAL or None)
    click.echo(f"{head}  {found.database} ({found.environment})")
    for reason in found.health.reasons:
        click.echo(f"  - {reason}")
    rows = [
        ("last success", _moment(found.last_success_at, zone)),
        ("last run", _last_run(found.last_run, zone)),
        ("next run", _moment(found.next_run_at, zone)),
        ("overdue", f"{'since' if found.health.overdue else 'from'} {_moment(found.overdue_at, zone)}"),
        ("artifacts", _counts(found, root)),
        ("daemon", f"running: {daemon}" if daemon is not None else "not running: systemctl start scpln-backup"),
    ]
    if found.last_drill is not None:
        measured = found.restore_seconds_measured
        taking = f"; a restore takes about {human_duration(measured)}" if measured is not None else ""
        at = _moment(found.last_drill.started_at, zone)
        rows.insert(3, ("last drill", f"{at}, {found.last_drill.outcome}{taking}"))
    if found.incident_deadline is not None:
        rows.append(("incident", f"open, its report is due {_moment(found.incident_deadline, zone)}"))
    if found.running_since is not None:
        rows.insert(2, ("running", f"a backup, since {_moment(found.running_since, zone)}"))
    for label, text in rows:
        click.echo(f"  {label:<13} {text}")


def _last_run(record: RunRecord | None, zone: ZoneInfo) -> str:
    if record is None:
        return "none yet"
    outcome = "interrupted" if record.interrupted and record.outcome is Outcome.FAILED else record.outcome
    return f"{_moment(record.started_at, zone)}, {outcome} ({record.trigger})"


def _counts(found: Status, root: Path) -> str:
    summary = found.artifacts
    parts = [f"{summary.verified} verified"]
    parts += [
        f"{count} {word}" for word, count in (("suspect", summary.suspect), ("corrupt", summary.corrupt)) if count
    ]
    return f"{summary.count} ({', '.join(parts)}), {human_bytes(summary.bytes)}, under {root}"


def _moment(moment: datetime | None, zone: ZoneInfo) -> str:
    return "never" if moment is None else moment.astimezone(zone).strftime(_SECOND)


def schedule(coming: Sequence[tuple[str, datetime]], zone: ZoneInfo) -> None:
    table = _table("JOB", "AT", "")
    for job, at in coming:
        table.add_row(job, at.isoformat(sep=" "), at.strftime("%A"))
    _console().print(table)
    click.echo(f"time zone: {zone.key}")
