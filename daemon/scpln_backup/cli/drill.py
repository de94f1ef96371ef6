"""`scpln-backup drill`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.cli.interrupt import INTERRUPTED, cancelled_by_signals
from scpln_backup.model import Outcome, Trigger
from scpln_backup.operations import drill as operation
from scpln_backup.support.text import human_duration

if TYPE_CHECKING:
    from scpln_backup.config.schema import DrillConfig
    from scpln_backup.model import DrillRecord


@click.command()
@json_option
@pass_session
def drill(session: Session) -> int:
    """Rehearse a restore: the newest artifact, every check, and the smoke test, in a folder of its own."""
    app = session.app()
    with cancelled_by_signals() as cancel:
        record = operation.drill(app.house, Trigger.CLI, cancel)
    if session.json:
        session.emit(document(record))
    else:
        _render(record, app.config.drill)
    if record.error:
        note(f"{'warning' if record.outcome is Outcome.DEGRADED else 'error'}: {record.error}")
    if record.outcome is Outcome.FAILED and cancel.is_set():
        return INTERRUPTED
    return 0 if record.outcome is Outcome.SUCCESS else 1


def document(record: DrillRecord) -> dict[str, Any]:
    """The JSON document: the contract's keys first."""
    return {
        "outcome": record.outcome,
        "artifact": record.artifact,
        "restore_seconds": record.restore_seconds,
        "smoke_exit_code": record.smoke_exit_code,
        "error": record.error,
        "trigger": record.trigger,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "output": record.output,
    }


def _render(record: DrillRecord, settings: DrillConfig) -> None:
    style = {Outcome.SUCCESS: "green", Outcome.DEGRADED: "yellow"}.get(record.outcome, "red")
    click.echo(f"{record.artifact or 'drill'}  {click.style(record.outcome, fg=style)}")
    if record.restore_seconds is not None:
        took = human_duration(record.restore_seconds)
        click.echo(f"  restore     {took}, to a checked database equal to the one that was backed up")
    if not settings.command:
        click.echo("  smoke test  none is configured: [drill] command")
    elif record.smoke_exit_code is not None:
        verdict = "passed" if record.smoke_exit_code == 0 else f"exit code {record.smoke_exit_code}"
        click.echo(f"  smoke test  {verdict}: {shlex.join(settings.command)}")
    if record.output is not None:
        click.echo(f"  output      {record.output}")
