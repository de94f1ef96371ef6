"""What every verb shares: the options, the configuration, the way out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from scpln_backup.app import App
from scpln_backup.config.load import find_config, load
from scpln_backup.errors import BackupError
from scpln_backup.support.locks import holder
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from scpln_backup.config.schema import Config
    from scpln_backup.events import Announcer

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

# Of a verb without a daemon: longer than a service takes that answers at all.
_TELLING_SECONDS = 20.0


class Session:
    """One invocation of the command."""

    def __init__(self, config_option: str | None) -> None:
        self.config_option = config_option
        self.json = False
        self.debug = False
        self._to_tell: list[App] = []

    @property
    def config_path(self) -> Path:
        return find_config(self.config_option, os.environ)

    def config(self) -> Config:
        return load(self.config_path, os.environ)

    def app(self, announce: Announcer | None = None, *, as_root: bool = False) -> App:
        """For verbs that change something; `as_root` for those that root may run in the owner's folders."""
        app = App.build(self.config(), announce, as_root=as_root)
        app.kept = lambda: self._to_tell.append(app)
        return app

    def reader(self, announce: Announcer | None = None) -> App:
        """For verbs that only look."""
        return App.reader(self.config(), announce)

    def settle(self) -> None:
        """See to it that whoever must know hears of what this verb has made happen.

        A running daemon tells it, within a heartbeat. Nothing that fails here changes how the verb ended.
        """
        if not self._to_tell:
            return
        app = self._to_tell[-1]
        self._to_tell.clear()
        try:
            app.write_audit_log()
            if holder(app.daemon_lock.path) is None and app.due_channels(app.now()):
                from scpln_backup.service.delivery import deliver_now  # noqa: PLC0415 - few verbs have anything to tell

                late = deliver_now(app, _TELLING_SECONDS)
                if late:
                    note(f"still to be told, by the daemon or `scpln-backup notify send`: {', '.join(late)}")
        except (BackupError, OSError) as error:
            log.warning("what happened could not be told to everybody: %s", one_line(error))

    def emit(self, value: object) -> None:
        """Print the one JSON document of a verb."""
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


pass_session = click.make_pass_decorator(Session)


def json_option(function: F) -> F:
    """The `--json` option of a verb, kept in the session."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.find_object(Session).json = True  # type: ignore[union-attr]  # the group has made it

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, help="Print one JSON document on stdout."
    )(function)


def note(text: str) -> None:
    """A line for people, on stderr, so that it never mixes into a document."""
    click.echo(text, err=True)
