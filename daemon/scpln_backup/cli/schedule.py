"""`scpln-backup schedule`."""

from __future__ import annotations

import heapq
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, pass_session

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@click.command()
@click.option("--from", "start", metavar="TIME", help="Show what follows TIME (ISO 8601). [default: now]")
@click.option("--count", type=click.IntRange(1, 10_000), default=7, show_default=True, help="How many fire times.")
@json_option
@pass_session
def schedule(session: Session, start: str | None, count: int) -> None:
    """Show when the jobs will run."""
    app = session.reader()
    after = _parse(start, app.zone) if start is not None else app.now()
    streams = [((at.timestamp(), job, at) for at in planned.after(after)) for job, planned in app.schedules.items()]
    coming = [(job, at) for _, job, at in islice(heapq.merge(*streams), count)]
    if session.json:
        session.emit([{"job": job, "at": at.isoformat()} for job, at in coming])
    else:
        render.schedule(coming, app.zone)


def _parse(text: str, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is not a time; write it as 2026-11-22, 2026-11-22T02:30 or 2026-11-22T02:30+09:00"
        raise click.BadParameter(message, param_hint="--from") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
