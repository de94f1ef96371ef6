"""What every verb shares: the options, the configuration, the way out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from scpln_backup.app import App
from scpln_backup.config.load import find_config, load

if TYPE_CHECKING:
    from pathlib import Path

    from scpln_backup.config.schema import Config
    from scpln_backup.events import Announcer

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One invocation of the command."""

    def __init__(self, config_option: str | None) -> None:
        self.config_option = config_option
        self.json = False
        self.debug = False

    @property
    def config_path(self) -> Path:
        return find_config(self.config_option, os.environ)

    def config(self) -> Config:
        return load(self.config_path, os.environ)

    def app(self, announce: Announcer | None = None, *, as_root: bool = False) -> App:
        """For verbs that change something; `as_root` for those that root may run in the owner's folders."""
        return App.build(self.config(), announce, as_root=as_root)

    def reader(self, announce: Announcer | None = None) -> App:
        """For verbs that only look."""
        return App.reader(self.config(), announce)

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
