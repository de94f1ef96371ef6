"""What people read of a restore: the plan, and what it has cost."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import click

from scpln_backup.rules.loss import since, words
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from datetime import tzinfo

    from scpln_backup.model import Incident, RestoreRecord
    from scpln_backup.operations.restore.plan import Plan

_MINUTE = "%Y-%m-%d %H:%M %Z"


def plan(made: Plan, zone: tzinfo, *, file: IO[str] = sys.stdout) -> None:
    """What will be done, before it is."""
    size = human_bytes(made.database_bytes) if made.database_bytes is not None else "unknown size"
    rows = [
        (
            "artifact",
            f"{made.artifact.name}, {made.artifact.state}, of {made.artifact.taken_at.astimezone(zone):{_MINUTE}}",
        ),
        ("database", f"{made.target}, {size}" + ("" if made.target_exists else "; there is none now")),
        ("room", f"{human_bytes(made.needed_bytes)} needed, {human_bytes(made.free_bytes)} free"),
        ("set aside in", made.set_aside),
        ("stops", ", ".join(made.units) or "nothing ([service] units is empty)"),
        ("open in", ", ".join(map(str, made.open_by)) or "no process"),
        ("takes about", _expected(made)),
    ]
    for label, text in rows:
        click.echo(f"  {label:<13} {text}", file=file)
    for warning in made.warnings:
        click.echo(f"warning: {warning}", file=file)


def _expected(made: Plan) -> str:
    if made.expected_seconds is None:
        return "unknown; `scpln-backup drill` measures it"
    return f"{human_duration(made.expected_seconds)}, and the stop and start of the units"


def restored(record: RestoreRecord, incident: Incident | None, locale: str, zone: tzinfo) -> None:
    """How it went, and what is missing now."""
    click.echo(f"{record.target}: restore of {record.artifact}: {record.outcome}")
    for step in record.steps:
        click.echo(f"  {step.at.astimezone(zone):%H:%M:%S}  {step.name} ({human_duration(step.seconds)})")
    if not record.replaced:
        return
    if record.set_aside is not None:
        click.echo(f"  the old database is in {record.set_aside}")
    if record.loss is not None:
        for sentence in words(record.loss, locale, zone):
            click.echo(f"  {sentence}")
        click.echo(f"next: scpln-backup rebuild --since {since(record.loss, zone)}")
    if incident is not None:
        deadline = incident.deadline_at.astimezone(zone)
        click.echo(
            f"incident {incident.id} is open; its report is due by {deadline:{_MINUTE}}: scpln-backup incident report"
        )
