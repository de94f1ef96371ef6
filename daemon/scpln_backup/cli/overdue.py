"""`scpln-backup overdue`: what a timer of its own asks, so that the alarm sounds with a dead daemon too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from scpln_backup.app import App
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.errors import BackupError, CatalogError, ConfigError
from scpln_backup.events import Announcer, Event, ServiceFailed
from scpln_backup.operations import overdue as operation
from scpln_backup.records import lastgood
from scpln_backup.support.locks import holder
from scpln_backup.support.people import current_user
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from scpln_backup.config.schema import Config

_TELLING_SECONDS = 60.0


@click.command()
@click.option("--service-failed", is_flag=True, help="For OnFailure= of the unit: tell that it has failed.")
@json_option
@pass_session
def overdue(session: Session, service_failed: bool) -> int:
    """Tell whoever must know if a deadline has passed; scpln-backup-overdue.timer asks every quarter of an hour.

    It needs no daemon. It also delivers what a daemon that died has left in the outbox.
    """
    from scpln_backup.service.delivery import deliver_now  # noqa: PLC0415 - brings the daemon's parts along

    app, problem = _app(session)
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    watch = operation.Watch(Path(runtime) / "told.json" if runtime else None)
    found: list[Event] = [_failure()] if service_failed else []
    for event in found:
        app.announce(event)
    try:
        running = holder(app.house.run_lock("").path)
        since = running.since if running is not None and running.what.startswith("a backup") else None
        found += watch.look(app.house, app.now(), since)
    except BackupError as error:
        problem = problem or error
        found += _by_the_disk(app, watch)
    try:
        app.write_audit_log()
    except CatalogError as error:
        problem = problem or error
    late = deliver_now(app, _TELLING_SECONDS)
    if session.json:
        session.emit([{"event": type(event).__name__, **msgspec.to_builtins(event)} for event in found])
    for event in found:
        note(_said(event))
    untold = sorted({*late, *app.due_channels(app.now())})
    if untold:
        note(f"not told yet: {', '.join(untold)}")
    if problem is not None:
        raise problem
    return 0


def _app(session: Session) -> tuple[App, BackupError | None]:
    """The app, and what is wrong with the configuration or the catalog: the alarm must sound all the same."""
    try:
        config, problem = session.config(), None
    except ConfigError as error:
        config, problem = lastgood.recall(os.environ, error), error
        note(f"warning: the configuration is wrong, the last good one is used: {one_line(error)}")
    try:
        return App.build(config), problem
    except CatalogError as error:
        return _without_catalog(config), problem or error


def _without_catalog(config: Config) -> App:
    """An app whose events stay in memory until they are told."""
    app = App.writer(config, Announcer(), actor=current_user())
    app.record()
    return app


def _by_the_disk(app: App, watch: operation.Watch) -> list[Event]:
    now = app.now()
    found = [event for event in operation.passed_by_the_disk(app.house, now) if watch.stamp(event, now)]
    for event in found:
        app.announce(event)
    return found


def _failure() -> ServiceFailed:
    """What systemd tells a unit that OnFailure= started (MONITOR_… of systemd.exec(5), since version 251)."""
    unit = os.environ.get("MONITOR_UNIT", "scpln-backup.service")
    result = os.environ.get("MONITOR_SERVICE_RESULT", "failed")
    code, status = os.environ.get("MONITOR_EXIT_CODE", ""), os.environ.get("MONITOR_EXIT_STATUS", "")
    problem = f"{result} ({code} {status})" if code else result
    return ServiceFailed(unit=unit, problem=problem, invocation=os.environ.get("MONITOR_INVOCATION_ID", ""))


def _said(event: Event) -> str:
    match event:
        case ServiceFailed(unit=unit, problem=problem):
            return f"{unit} has failed: {problem}"
        case _:
            return f"{type(event).__name__} {event.key}"
