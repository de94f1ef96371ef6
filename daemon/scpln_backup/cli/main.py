"""The command: its options, its verbs, and the one place that turns errors into messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from scpln_backup import __version__
from scpln_backup.cli.audit import audit
from scpln_backup.cli.backup import backup
from scpln_backup.cli.config import config
from scpln_backup.cli.context import Session, note
from scpln_backup.cli.doctor import doctor
from scpln_backup.cli.drill import drill
from scpln_backup.cli.incident import incident
from scpln_backup.cli.listing import listing
from scpln_backup.cli.notify import notify
from scpln_backup.cli.overdue import overdue
from scpln_backup.cli.pin import pin, unpin
from scpln_backup.cli.rebuild import rebuild
from scpln_backup.cli.restore import restore
from scpln_backup.cli.schedule import schedule
from scpln_backup.cli.serve import serve
from scpln_backup.cli.status import status
from scpln_backup.cli.sweep import sweep
from scpln_backup.cli.verify import verify
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


class _Verbs(click.Group):
    """Lists the verbs in the order of a day's work rather than of the alphabet."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(self.commands)


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
    level = logging.DEBUG if debug else logging.INFO if context.invoked_subcommand == "serve" else logging.WARNING
    logging.getLogger().setLevel(level)


_BACKUP_VERBS = (serve, backup, listing, verify, sweep, pin, unpin)
_WAY_BACK_VERBS = (restore, drill, rebuild, incident)
_LOOKING_VERBS = (status, doctor, schedule, config)
_TELLING_VERBS = (audit, notify, overdue)

for verb in (*_BACKUP_VERBS, *_WAY_BACK_VERBS, *_LOOKING_VERBS, *_TELLING_VERBS):
    command.add_command(verb)


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
