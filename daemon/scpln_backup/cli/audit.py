"""`scpln-backup audit`."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli import render_audit as render
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.cli.times import parse_time
from scpln_backup.config.schema import Locale
from scpln_backup.operations import review as operation
from scpln_backup.records import auditfiles
from scpln_backup.records.auditlog import Kind
from scpln_backup.records.auditnote import read_note
from scpln_backup.records.auditverify import verify as verify_log
from scpln_backup.rules.review import bounds, month_before, month_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.app import App
    from scpln_backup.records.auditlog import Line

_SHOWN = 50

month_option = click.option("--month", metavar="YYYY-MM", help="Only that month.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def audit(context: click.Context) -> None:
    """Read and check the audit log: who did what, and when. [default: show]"""
    if context.invoked_subcommand is None:
        context.invoke(show)


@audit.command()
@click.option("--since", metavar="TIME", help="Only what happened at TIME (ISO 8601) or later.")
@click.option("--until", metavar="TIME", help="Only what happened before TIME.")
@month_option
@click.option(
    "--event",
    "events",
    metavar="KIND",
    multiple=True,
    type=click.Choice([kind.value for kind in Kind]),
    help="Only these, such as run_finished or restore_started; repeatable. A wrong one gets the list.",
)
@click.option("--limit", type=click.IntRange(1), default=_SHOWN, show_default=True, help="The newest N.")
@json_option
@pass_session
def show(
    session: Session, *, since: str | None, until: str | None, month: str | None, events: tuple[str, ...], limit: int
) -> None:
    """Show what is in the log, newest last."""
    app = session.reader()
    wanted = _period(app.zone, since, until, month)
    seen: list[int] = []
    found: deque[Line] = deque(maxlen=limit)
    with auditfiles.opened(_log(app)) as files:
        for line in auditfiles.lines(files, _chain(app)):
            seen.append(line.seq)
            if wanted(line.at) and (not events or line.event in events):
                found.append(line)
    if any(after != before + 1 for before, after in pairwise(seen)):
        note("warning: lines are missing, or not as they were written: scpln-backup audit verify")
    if session.json:
        session.emit([document(line) for line in found])
    else:
        render.lines(found, _log(app), app.zone)


@audit.command()
@json_option
@pass_session
def verify(session: Session) -> int:
    """Check that every line is as it was written and none is missing. Exit code 1 if not."""
    app = session.reader()
    verdict = verify_log(_log(app), app.state_folder)
    if session.json:
        session.emit(verdict)
    else:
        render.verdict(verdict, _log(app), app.zone)
    return 0 if verdict.ok else 1


@audit.command()
@click.option("--month", metavar="YYYY-MM", help="Which one. [default: the last that is over]")
@click.option(
    "--locale", type=click.Choice([one.value for one in Locale]), help="Its language. [default: the configured one]"
)
@json_option
@pass_session
def review(session: Session, month: str | None, locale: str | None) -> None:
    """Print the review of a month in Markdown, as it would be now. It is sent to nobody."""
    app = session.reader()
    now = app.now()
    chosen = month if month is not None else month_before(month_of(now))
    begin, _ = _bounds(chosen, app.zone)
    if begin.timestamp() > now.timestamp():
        raise click.BadParameter(f"{chosen} has not begun", param_hint="--month")
    made = operation.draft(app.house, chosen, now, locale)
    if session.json:
        language = locale or app.config.locale
        session.emit({"month": made.month, "locale": language, "unticketed": made.unticketed, "text": made.text})
    else:
        click.echo(made.text, nl=False)


def _log(app: App) -> Path:
    return Path(app.config.audit.log)


def _chain(app: App) -> str | None:
    """Which lines are this installation's; None where that was never noted."""
    noted = read_note(app.state_folder)
    return noted.chain if noted is not None else None


def _bounds(month: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    try:
        return bounds(month, zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--month") from error


def _period(zone: ZoneInfo, since: str | None, until: str | None, month: str | None) -> Callable[[datetime], bool]:
    """Whether a moment is asked for."""
    if month is not None and (since is not None or until is not None):
        raise click.UsageError("--month and --since or --until exclude each other")
    if month is not None:
        begin, end = (border.timestamp() for border in _bounds(month, zone))
    else:
        begin = parse_time(since, zone, "--since").timestamp() if since is not None else float("-inf")
        end = parse_time(until, zone, "--until").timestamp() if until is not None else float("inf")
    return lambda at: begin <= at.timestamp() < end


def document(line: Line) -> dict[str, Any]:
    """The JSON document: the line's members, but for those that chain it."""
    own = ("seq", "at", "event", "actor", "database", "environment", "host")
    links = ("catalog", "entry", "hash")
    return {
        **{name: getattr(line, name) for name in own},
        **line.facts,
        **{name: getattr(line, name) for name in links},
    }
