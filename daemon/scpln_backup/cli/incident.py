"""`scpln-backup incident`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from scpln_backup.cli import render_incident as render
from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.config.schema import Locale
from scpln_backup.errors import IncidentError, from_os
from scpln_backup.operations import incident as operation
from scpln_backup.rules.report import missing
from scpln_backup.support import files

if TYPE_CHECKING:
    from scpln_backup.app import App
    from scpln_backup.model import Incident

F = TypeVar("F", bound=Callable[..., Any])

_STDIN = "-"
_READABLE = 0o644

number = click.argument("number", metavar="[ID]", type=click.IntRange(1), required=False)


def parts(function: F) -> F:
    """The options for what only people can write."""
    for name, text in (("prevention", "What keeps it from happening again."), ("scope", "Whom and what it affected.")):
        option = click.option(f"--{name}", metavar="TEXT", callback=_text, help=f"{text} @FILE reads a file, - stdin.")
        function = option(function)
    return function


def _text(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or not (value == _STDIN or value.startswith("@")):
        return value
    hint = f"--{parameter.name}"
    try:
        return sys.stdin.read() if value == _STDIN else Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        message = f"{value[1:]}: {error.strerror}; a text that begins with @ can be given on stdin, with -"
        raise click.BadParameter(message, param_hint=hint) from error
    except UnicodeDecodeError as error:
        raise click.BadParameter("the text is not UTF-8", param_hint=hint) from error


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def incident(context: click.Context) -> None:
    """Work on the incident that a restore has opened: its report is due within 24 hours. [default: list]"""
    if context.invoked_subcommand is None:
        context.invoke(listing)


@incident.command("list")
@json_option
@pass_session
def listing(session: Session) -> None:
    """List the incidents, newest first."""
    app = session.reader()
    found = app.catalog.incidents()
    if session.json:
        session.emit([document(one) for one in found])
    else:
        render.incidents(found, app.now(), app.zone)


@incident.command()
@number
@json_option
@pass_session
def show(session: Session, number: int | None) -> None:
    """Show one incident. [default: the open one, else the newest]"""
    app = session.reader()
    found = operation.chosen(app.house, number)
    if session.json:
        session.emit(document(found))
    else:
        render.incident(found, app.config.locale, app.now(), app.zone)


@incident.command()
@number
@parts
@json_option
@pass_session
def note(session: Session, number: int | None, scope: str | None, prevention: str | None) -> None:
    """Keep what only people can write, for the report. [default: of the open one]"""
    if scope is None and prevention is None:
        raise click.UsageError("say what to keep: --scope, --prevention or both")
    house = _writer(session).house
    found = operation.set_part(house, operation.to_change(house, number), scope=scope, prevention=prevention)
    if session.json:
        session.emit(document(found))
    else:
        render.noted(found)


@incident.command()
@number
@parts
@json_option
@pass_session
def close(session: Session, number: int | None, scope: str | None, prevention: str | None) -> None:
    """Close an incident whose report is complete. [default: the open one]"""
    house = _writer(session).house
    chosen = operation.to_change(house, number)
    if scope is not None or prevention is not None:
        operation.set_part(house, chosen, scope=scope, prevention=prevention)
    found = operation.close(house, chosen, house.now())
    if session.json:
        session.emit(document(found))
    else:
        render.closed(found, house.zone)


@incident.command()
@number
@click.option(
    "--locale", type=click.Choice([one.value for one in Locale]), help="Its language. [default: the configured one]"
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to FILE, which must be new.")
@json_option
@pass_session
def report(session: Session, number: int | None, locale: str | None, output: Path | None) -> None:
    """Draft the report in Markdown. [default: of the open one, else of the newest]"""
    app = session.reader()
    found = operation.chosen(app.house, number)
    language = locale or app.config.locale
    text = operation.report(app.house, found, language)
    if output is not None:
        _write(output, text)
    if session.json:
        written = str(output) if output is not None else None
        session.emit({"id": found.id, "locale": language, "missing": missing(found), "output": written, "text": text})
    elif output is not None:
        click.echo(f"the report of incident {found.id} is in {output}")
    else:
        click.echo(text, nl=False)


def _writer(session: Session) -> App:
    """Whoever made the restore as root goes on as root; what that writes here stays the owner's."""
    return session.app(as_root=True)


def _write(output: Path, text: str) -> None:
    """Never over a file: it may be a draft that somebody has worked on."""
    try:
        files.write_durably(output, text.encode(errors="replace"), _READABLE, overwrite=False)
    except FileExistsError as error:
        raise IncidentError(f"{output}: there is a file already; give another name to --output") from error
    except OSError as error:
        error.filename = str(output)  # not the temporary file's
        raise from_os(error) from error


def document(incident: Incident) -> dict[str, Any]:
    """The JSON document: the record, and what it still lacks."""
    return {**msgspec.structs.asdict(incident), "open": incident.closed_at is None, "missing": missing(incident)}
