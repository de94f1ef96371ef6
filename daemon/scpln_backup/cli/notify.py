"""`scpln-backup notify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from scpln_backup.app import AUDIT
from scpln_backup.cli import render_notify as render
from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.errors import BackupError, ConfigError
from scpln_backup.support.people import current_user
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from scpln_backup.app import App

_SENDING_SECONDS = 60.0


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def notify(context: click.Context) -> int | None:
    """See to the messages: audit log, Slack, Pushgateway, PagerDuty, Jira. [default: status]"""
    if context.invoked_subcommand is None:
        code: int = context.invoke(status)
        return code
    return None


@notify.command()
@json_option
@pass_session
def status(session: Session) -> int:
    """Tell what waits for each channel, and why. Exit code 1 while one is failing."""
    app = session.reader()
    found = app.catalog.channels()
    if session.json:
        session.emit([msgspec.structs.asdict(state) for state in found])
    else:
        render.channels(found, app.channel_names, app.now(), app.zone)
    return 1 if any(state.failing_since is not None for state in found) else 0


@notify.command()
@json_option
@pass_session
def send(session: Session) -> int:
    """Send what waits now, also what was to be tried again later."""
    from scpln_backup.service.delivery import deliver_now  # noqa: PLC0415 - brings the daemon's parts along

    app = session.app()
    for name in app.channel_names:
        app.catalog.retry_now(name)
    app.write_audit_log()
    deliver_now(app, _SENDING_SECONDS)
    found = app.catalog.channels()
    if session.json:
        session.emit([msgspec.structs.asdict(state) for state in found])
    else:
        render.channels(found, app.channel_names, app.now(), app.zone)
    return 1 if any(state.failing_since is not None for state in found) else 0


@notify.command()
@click.argument("channel", required=False)
@json_option
@pass_session
def test(session: Session, channel: str | None) -> int:
    """Send a test message through CHANNEL, and wait for it. [default: through each that is configured]

    PagerDuty gets an alert that is resolved at once, Jira a ticket that is closed at once.
    """
    app = session.reader()
    known = [name for name in app.channel_names if name != AUDIT]
    if channel is not None and channel not in known:
        listed = ", ".join(known) or "none is"
        raise ConfigError(f"{channel}: no configured channel; configured: {listed}")
    if not known:
        raise ConfigError("no channel is configured: see [slack], [pushgateway], [pagerduty], [jira] in the config")
    results = [_tested(app, name) for name in ([channel] if channel is not None else known)]
    if session.json:
        session.emit(results)
    else:
        for result in results:
            render.tested(result["channel"], result["error"], result["seconds"])
    return 0 if all(result["ok"] for result in results) else 1


def _tested(app: App, name: str) -> dict[str, Any]:
    from scpln_backup.service.delivery import send_test  # noqa: PLC0415 - brings the daemon's parts along

    began = app.now()
    try:
        error = send_test(app, name, current_user())
    except BackupError as failure:
        error = one_line(failure)
    seconds = round((app.now() - began).total_seconds(), 3)
    return {"channel": name, "ok": error is None, "error": error, "seconds": seconds}
