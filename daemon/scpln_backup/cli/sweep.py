"""`scpln-backup sweep`."""

from __future__ import annotations

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.errors import SweepRefusedError
from scpln_backup.operations import sweep as operation
from scpln_backup.rules.retention import Action


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--explain", is_flag=True, help="Give the reason for each artifact, kept ones too.")
@click.option("--despite-failure", is_flag=True, help="Delete although the last run failed or is suspect.")
@click.option("--accept-clock", is_flag=True, help="Take the clock as it is now for right, after it jumped.")
@json_option
@pass_session
def sweep(session: Session, dry_run: bool, explain: bool, despite_failure: bool, accept_clock: bool) -> int:
    """Delete what retention no longer keeps."""
    app = session.reader() if dry_run else session.app()
    house = app.house
    if dry_run:
        artifacts = house.store.scan()
        last = None if despite_failure else app.catalog.last_finished()
        result = operation.plan(house, artifacts, app.now(), last)
        doomed = {verdict.name for verdict in result.verdicts if verdict.action is Action.DELETE}
        try:
            operation.refuse_to_empty(artifacts, doomed)
        except SweepRefusedError as error:
            note(f"warning: without --dry-run this would be refused: {error}")
    else:
        house.require_owner()
        with house.run_lock("a sweep"):
            if accept_clock:
                operation.accept_clock(house)
            artifacts = house.store.scan()
            app.catalog.sync_artifacts(artifacts, app.now())
            last = None if despite_failure else app.catalog.last_finished()
            result = operation.sweep(house, artifacts, app.now(), last)
    if session.json:
        session.emit(result.verdicts)
    else:
        render.sweep(result, dry_run=dry_run, explain=explain)
    if result.frozen is not None:
        note(f"warning: retention is frozen: {result.frozen}")
    return 1 if result.frozen is not None and not dry_run else 0
