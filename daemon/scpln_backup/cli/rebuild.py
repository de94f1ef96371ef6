"""`scpln-backup rebuild`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.cli.interrupt import INTERRUPTED, cancelled_by_signals
from scpln_backup.model import Outcome
from scpln_backup.operations import rebuild as operation
from scpln_backup.support.text import human_duration

if TYPE_CHECKING:
    from scpln_backup.model import Incident, RebuildRecord


@click.command()
@click.option("--since", metavar="DATE", help="From when, YYYY-MM-DD. [default: from what the restore lost]")
@json_option
@pass_session
def rebuild(session: Session, since: str | None) -> int:
    """Run the rebuild script for the open incident."""
    app = session.app(as_root=True)
    with cancelled_by_signals() as cancel:
        record, incident = operation.rebuild(app.house, since, cancel)
    if session.json:
        session.emit(document(record, incident))
    else:
        _render(record, incident)
    if record.error:
        note(f"{'warning' if record.outcome is Outcome.DEGRADED else 'error'}: {record.error}")
    if record.outcome is Outcome.FAILED and cancel.is_set():
        return INTERRUPTED
    return 0 if record.outcome is Outcome.SUCCESS else 1


def document(record: RebuildRecord, incident: Incident) -> dict[str, Any]:
    """The JSON document: the contract's keys first."""
    return {
        "outcome": record.outcome,
        "since": record.since,
        "exit_code": record.exit_code,
        "error": record.error,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "output": record.output,
        "incident": incident.id,
    }


def _render(record: RebuildRecord, incident: Incident) -> None:
    style = {Outcome.SUCCESS: "green", Outcome.DEGRADED: "yellow"}.get(record.outcome, "red")
    click.echo(f"rebuild since {record.since}  {click.style(record.outcome, fg=style)}")
    if record.finished_at is not None:
        took = (record.finished_at - record.started_at).total_seconds()
        click.echo(f"  time      {human_duration(took)}")
    if record.output is not None:
        click.echo(f"  output    {record.output}")
    click.echo(f"  incident  {incident.id}; its report: scpln-backup incident report")
