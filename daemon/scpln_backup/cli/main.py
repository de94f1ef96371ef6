"""The command: its options, its verbs, and the one place that turns errors into messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from scpln_backup import __version__
from scpln_backup.cli.context import Session, note
from scpln_backup.errors import BackupError
from scpln_backup.observers.log import handler
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130

_EPILOG = (
    "Exit codes: 0 done; 1 the operation failed; 2 usage or configuration; 75 somebody else holds the lock; "
    "130 interrupted."
)


# In the order of a day's work. Each verb's module is imported when it is used: the daemon has no use for the tables of
# the others, and `status` none for the restore.
_VERBS = {
    "serve": "serve",
    "backup": "backup",
    "list": "listing",
    "verify": "verify",
    "sweep": "sweep",
    "pin": "pin",
    "unpin": "pin",
    "restore": "restore",
    "drill": "drill",
    "rebuild": "rebuild",
    "incident": "incident",
    "status": "status",
    "doctor": "doctor",
    "schedule": "schedule",
    "config": "config",
    "audit": "audit",
    "notify": "notify",
    "overdue": "overdue",
}


class _Verbs(click.Group):
    """Finds each verb in the module of the table above: the command there that has its name."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module = import_module(f"scpln_backup.cli.{_VERBS[name]}")
        return next(each for each in vars(module).values() if isinstance(each, click.Command) and each.name == name)


@click.group(cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "config_option",
    metavar="FILE",
    help="The configuration. [default: $SCPLN_BACKUP_CONFIG, else /etc/scpln-backup/config.toml]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--debug", is_flag=True, help="Log more, and show a traceback when something fails.")
@click.version_option(__version__, prog_name="scpln-backup")
@click.pass_context
def command(context: click.Context, config_option: str | None, as_json: bool, debug: bool) -> None:
    """Back up scpln's SQLite database: consistent, proven, swept, measured."""
    context.obj.config_option = config_option
    context.obj.json = as_json
    context.obj.debug = debug
    if os.environ.get("NO_COLOR"):  # https://no-color.org; rich looks itself
        context.color = False
    level = logging.DEBUG if debug else logging.INFO if context.invoked_subcommand == "serve" else logging.WARNING
    logging.getLogger().setLevel(level)


def run(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    logging.basicConfig(handlers=[handler(os.environ, sys.stderr)])
    try:
        code = _run(Session(None), arguments)
        sys.stdout.flush()  # here, where it can still be told that it does not go
    except BrokenPipeError:  # the reader of our output went away (`… | head`)
        _drop_output()
        return 1
    except OSError as error:
        if error.filename is not None:
            raise  # no output of ours: a bug
        _drop_output()
        note(f"error: the output cannot be written: {one_line(error)}")
        return 1
    return code


def _run(session: Session, arguments: Sequence[str]) -> int:
    try:
        try:
            code = command.main(list(arguments), "scpln-backup", standalone_mode=False, obj=session)
        finally:
            session.settle()
    except BackupError as error:
        return _report(session, str(error), error.exit_code, error)
    except click.ClickException as error:
        _show_usage(error)
        return _report(session, error.format_message(), error.exit_code, error)
    except (click.Abort, KeyboardInterrupt) as error:
        return _report(session, "interrupted", _INTERRUPTED, error)
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """What Python flushes at exit must not complain too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    if context is not None:
        note(context.get_usage())


def _report(session: Session, message: str, code: int, error: BaseException) -> int:
    if session.debug:
        logging.getLogger(__name__).debug("failed", exc_info=error)
    note(f"error: {message}")
    if session.json:
        session.emit({"error": message, "exit_code": code})
    return code
