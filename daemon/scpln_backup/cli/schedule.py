"""`scpln-backup schedule`."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.cli.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from scpln_backup.rules.slots import Schedule


@click.command()
@click.option("--from", "start", metavar="TIME", help="Show what follows TIME (ISO 8601). [default: now]")
@click.option("--count", type=click.IntRange(1, 10_000), default=7, show_default=True, help="How many fire times.")
@json_option
@pass_session
def schedule(session: Session, start: str | None, count: int) -> None:
    """Show when the jobs will run."""
    app = session.reader()
    after = parse_time(start, app.zone, "--from") if start is not None else app.now()
    streams = [_stream(job, planned, after) for job, planned in app.schedules.items()]
    coming = [(job, at) for _, job, at in islice(heapq.merge(*streams), count)]
    if session.json:
        session.emit([{"job": job, "at": at.isoformat()} for job, at in coming])
    else:
        render.schedule(coming, app.zone)


def _stream(job: str, planned: Schedule, after: datetime) -> Iterator[tuple[float, str, datetime]]:
    """A job's slots, in an order that holds across zones and changes of the clocks."""
    for at in planned.after(after):
        yield at.timestamp(), job, at
