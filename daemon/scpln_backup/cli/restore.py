"""`scpln-backup restore`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli import render_restore as render
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.cli.interrupt import INTERRUPTED, cancelled_by_signals
from scpln_backup.cli.progress import progress_bar
from scpln_backup.cli.times import parse_time
from scpln_backup.errors import LockHeldError, RestoreRefusedError, StoppedError
from scpln_backup.events import Announcer
from scpln_backup.model import RestoreOutcome, RestoreRecord
from scpln_backup.operations.restore import elsewhere, journal, plan, run
from scpln_backup.rules.loss import lost_rows

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from scpln_backup.app import App
    from scpln_backup.operations.house import House


@click.command()
@click.argument("name", required=False)
@click.option("--latest", is_flag=True, help="The newest verified artifact; what is taken when nothing is said.")
@click.option("--at", metavar="TIME", help="The newest verified artifact not after TIME (ISO 8601).")
@click.option("--to", type=click.Path(path_type=Path), metavar="PATH", help="Only write a checked copy to PATH.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Don't ask before anything is stopped.")
@click.option("--resume", is_flag=True, help="Go on with a restore that was broken off.")
@click.option("--abort", is_flag=True, help="Undo a restore that was broken off.")
@click.option("--allow-suspect", is_flag=True, help="Restore an artifact that is suspect.")
@click.option("--allow-unverified", is_flag=True, help="Restore an artifact that was never verified.")
@click.option("--allow-deleted", is_flag=True, help="Let go of a deleted database that is still open in a process.")
@click.option("--allow-schema", is_flag=True, help="Restore a schema newer than the running application's.")
@json_option
@pass_session
def restore(session: Session, /, name: str | None, at: str | None, **options: Any) -> int:
    """Put an artifact in the live database's place.

    The old database is set aside, never deleted, and whatever fails puts it back.
    """
    if sum((name is not None, options["latest"], at is not None, options["resume"], options["abort"])) > 1:
        raise click.UsageError("NAME, --latest, --at, --resume and --abort exclude one another")
    allowed = plan.Allowed(
        suspect=options["allow_suspect"],
        unverified=options["allow_unverified"],
        deleted=options["allow_deleted"],
        schema=options["allow_schema"],
    )
    announce = Announcer()
    looking = options["dry_run"] or options["to"] is not None
    app = session.reader(announce) if looking else session.app(announce, as_root=True)
    if options["resume"] or options["abort"]:
        return _go_on(session, app, abort=options["abort"])
    if not looking:
        _require_none_broken_off(app)
    artifact = plan.choose(app.house, name, parse_time(at, app.zone, "--at") if at is not None else None)
    if options["to"] is not None:
        return _elsewhere(
            session,
            app,
            lambda house, cancel: elsewhere.write_copy(house, artifact, options["to"], allowed, cancel),
            artifact.name,
            options["to"],
        )
    made = plan.make(app.house, artifact, app.house.source, app.now(), allowed, looking=looking)
    if options["dry_run"]:
        if session.json:
            session.emit(made)
        else:
            render.plan(made, app.zone)
        return 0
    return _replace(session, app, made, yes=options["yes"])


def _elsewhere(
    session: Session, app: App, write: Callable[[House, threading.Event], None], name: str, path: Path
) -> int:
    with cancelled_by_signals() as cancel, progress_bar(app.announce):
        write(app.house, cancel)
    if session.json:
        session.emit(document(None, name, target=str(path)))
    else:
        click.echo(f"{path}: the checked database of {name}; nothing else was touched")
    return 0


def _replace(session: Session, app: App, made: plan.Plan, *, yes: bool) -> int:
    if not yes:
        _ask(made, app)
    house = app.house
    with _run_lock(house), cancelled_by_signals() as cancel, progress_bar(app.announce):
        _require_none_broken_off(app)
        record = run.Restoration(house, run.begin(house, made), cancel).go_on()
    return _tell(session, app, record, interrupted=cancel.is_set())


@contextmanager
def _run_lock(house: House) -> Iterator[None]:
    """The run lock. A drill may have it for as long as its smoke test takes, which is too long to wait at 3 a.m."""
    lock = house.run_lock("a restore")
    try:
        lock.acquire()
    except LockHeldError as error:
        raise LockHeldError(f"{error}, or end it: systemctl restart scpln-backup") from error
    try:
        yield
    finally:
        lock.release()


def _require_none_broken_off(app: App) -> None:
    broken_off = journal.load(app.house)
    if broken_off is not None:
        at = broken_off.record.started_at.astimezone(app.zone)
        msg = (
            f"the restore of {at:%Y-%m-%d %H:%M} was broken off; finish it first: scpln-backup restore "
            f"--resume, or scpln-backup restore --abort"
        )
        raise RestoreRefusedError(msg)


def _ask(made: plan.Plan, app: App) -> None:
    if not sys.stdin.isatty():
        raise RestoreRefusedError("nobody is there to be asked before the service is stopped; say --yes, or --dry-run")
    render.plan(made, app.zone, file=sys.stderr)
    if not click.confirm("Go ahead?", err=True):
        raise StoppedError("not confirmed; nothing was stopped or changed")


def _go_on(session: Session, app: App, *, abort: bool) -> int:
    house = app.house
    with _run_lock(house), cancelled_by_signals() as cancel, progress_bar(app.announce):
        broken_off = journal.load(house)
        if broken_off is None:
            raise RestoreRefusedError("no restore was broken off; there is nothing to resume or to abort")
        restoration = run.Restoration(house, broken_off, cancel)
        record = restoration.abort() if abort else restoration.resume()
    return _tell(session, app, record, interrupted=cancel.is_set(), undone_as_asked=abort)


def _tell(
    session: Session, app: App, record: RestoreRecord, *, interrupted: bool, undone_as_asked: bool = False
) -> int:
    incident = app.catalog.open_incident() if record.replaced else None
    if session.json:
        session.emit(document(record, record.artifact, incident=incident.id if incident is not None else None))
    else:
        render.restored(record, incident, app.config.locale, app.zone)
    if record.outcome is RestoreOutcome.SUCCESS or undone_as_asked:
        return 0
    note(f"error: {record.error}")
    return INTERRUPTED if interrupted else 1


def document(
    record: RestoreRecord | None, artifact: str, *, target: str | None = None, incident: int | None = None
) -> dict[str, Any]:
    """The JSON document: the contract's keys first. `lost_rows` counts, by table, what is gone at the least."""
    loss = record.loss if record is not None else None
    return {
        "outcome": record.outcome if record is not None else RestoreOutcome.SUCCESS,
        "artifact": artifact,
        "replaced": record.replaced if record is not None else False,
        "set_aside": record.set_aside if record is not None else None,
        "lost_rows": lost_rows(loss) if loss is not None else {},
        "incident": incident,
        "steps": record.steps if record is not None else (),
        "target": record.target if record is not None else target,
        "loss": loss,
        "error": record.error if record is not None else None,
    }
