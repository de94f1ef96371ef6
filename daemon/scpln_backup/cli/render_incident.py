"""What people read of incidents: a table of all, and one in full."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scpln_backup.rules.loss import lost_rows, words
from scpln_backup.rules.report import missing, seconds_between
from scpln_backup.support.text import human_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.model import Incident, RebuildRecord

_MINUTE = "%Y-%m-%d %H:%M"
_SECOND = "%Y-%m-%d %H:%M:%S %Z"
_PIPE_WIDTH = 200  # where nobody's terminal sets a width, a name must not be cut


def incidents(found: Sequence[Incident], now: datetime, zone: tzinfo) -> None:
    """`incident list`, newest first."""
    if not found:
        click.echo("there are no incidents: no restore has opened one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "RESTORED", "ARTIFACT", "LOST ROWS", "DUE", "STATE", "LACKS"):
        right = heading in {"ID", "LOST ROWS"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for one in found:
        lacks = missing(one) if one.closed_at is None else ()
        table.add_row(
            str(one.id),
            _local(one.restore.started_at, zone, _MINUTE),
            one.restore.artifact,
            _lost(one),
            _local(one.deadline_at, zone, _MINUTE),
            _state(one, now),
            ", ".join(lacks),
        )
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False).print(table)


def incident(found: Incident, locale: str, now: datetime, zone: tzinfo) -> None:
    """`incident show`."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=True)
    console.print(Text.assemble(f"incident {found.id}  ", _state(found, now)))
    for label, text in _facts(found, zone):
        click.echo(f"  {label:<13} {text}")
    loss = found.restore.loss
    for sentence in words(loss, locale, zone) if loss is not None else ["what was lost was not measured"]:
        click.echo(f"  - {sentence}")
    lacks = missing(found)
    if found.closed_at is None:
        options = "".join(f" --{part} TEXT" for part in lacks)
        click.echo(f"next: scpln-backup incident close {found.id}{options}")


def _facts(found: Incident, zone: tzinfo) -> Iterator[tuple[str, str]]:
    restore = found.restore
    yield "restored", f"{_local(restore.started_at, zone)}{f', by {restore.user}' if restore.user else ''}"
    yield "artifact", restore.artifact
    yield "database", restore.target
    yield "set aside in", restore.set_aside or "nothing was there"
    yield "due", _local(found.deadline_at, zone)
    if found.closed_at is not None:
        yield "closed", _local(found.closed_at, zone)
    for rebuild in found.rebuilds:
        yield "rebuild", _rebuild(rebuild, zone)
    yield "scope", _written(found.scope)
    yield "prevention", _written(found.prevention)


def _rebuild(rebuild: RebuildRecord, zone: tzinfo) -> str:
    ended = rebuild.finished_at is not None
    outcome = f"{rebuild.outcome}, exit code {rebuild.exit_code}" if ended else "not ended"
    return f"{_local(rebuild.started_at, zone)}, since {rebuild.since}: {outcome}"


def _written(text: str | None) -> str:
    """The first line; the report has the whole."""
    lines = (text or "").strip().splitlines()
    if not lines:
        return "not written yet"
    return lines[0] if len(lines) == 1 else f"{lines[0]} …"


def _lost(found: Incident) -> str:
    loss = found.restore.loss
    if loss is None or loss.problem is not None:
        return "unknown" if loss is None else f"≥ {sum(lost_rows(loss).values()):,}"
    return f"{sum(lost_rows(loss).values()):,}"


def _state(found: Incident, now: datetime) -> Text:
    if found.closed_at is not None:
        late = seconds_between(found.deadline_at, found.closed_at) > 0
        return Text("closed late" if late else "closed", style="yellow" if late else "green")
    left = seconds_between(now, found.deadline_at)
    if left < 0:
        return Text(f"open, overdue by {human_duration(-left)}", style="bold red")
    return Text(f"open, {human_duration(left)} left", style="yellow")


def _local(at: datetime, zone: tzinfo, form: str = _SECOND) -> str:
    return at.astimezone(zone).strftime(form)


def noted(found: Incident) -> None:
    lacks = missing(found)
    rest = f"still empty: {', '.join(lacks)}" if lacks else f"complete: scpln-backup incident close {found.id}"
    click.echo(f"incident {found.id}: kept; {rest}")


def closed(found: Incident, zone: tzinfo) -> None:
    late = found.closed_at is not None and seconds_between(found.deadline_at, found.closed_at) > 0
    kept = "after its deadline" if late else "within its deadline"
    click.echo(f"incident {found.id}: closed, {kept} ({_local(found.deadline_at, zone)})")
    click.echo(f"its report: scpln-backup incident report {found.id}")
