"""The command line as plain values, read from click's own: what the manual and the completions are made from."""
# ruff: noqa: INP001 - the folder is run as a program (`python packaging/generate`), it is no package

from __future__ import annotations

import inspect
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "scpln-backup"


class Value(Enum):
    """What can be said of an option's value or an argument while it is typed."""

    ANYTHING = auto()
    FILE = auto()
    CHOICE = auto()


class Option(NamedTuple):
    """`metavar` is "" for a flag; `choices` is empty but for Value.CHOICE."""

    names: tuple[str, ...]
    metavar: str
    value: Value
    choices: tuple[str, ...]
    help: str


class Verb(NamedTuple):
    """The command itself (`path` is empty) or one of its verbs; `help` is its paragraphs, the first one line.

    `usage` is what follows the path, as in `--help`.
    """

    path: tuple[str, ...]
    usage: str
    help: tuple[str, ...]
    options: tuple[Option, ...]
    verbs: tuple[Verb, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def summary(self) -> str:
        return self.help[0].removesuffix(".")

    def every(self) -> Iterator[Verb]:
        """This one, and those below it, in the order of `--help`."""
        yield self
        for verb in self.verbs:
            yield from verb.every()


def read(command: click.Command) -> Verb:
    context = click.Context(command, info_name=PROGRAM, **command.context_settings)
    return _read(command, context, ())


def _read(command: click.Command, context: click.Context, path: tuple[str, ...]) -> Verb:
    below = []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            if verb is not None and not verb.hidden:
                below.append(_read(verb, click.Context(verb, info_name=name, parent=context), (*path, name)))
    shown = [one for one in command.get_params(context) if isinstance(one, click.Option) and not one.hidden]
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return Verb(
        path=path,
        usage=" ".join(command.collect_usage_pieces(context)),
        help=tuple(" ".join(paragraph.split()) for paragraph in paragraphs),
        options=tuple(_option(option, context) for option in shown),
        verbs=tuple(below),
    )


def _option(option: click.Option, context: click.Context) -> Option:
    value = Value.ANYTHING
    choices: tuple[str, ...] = ()
    if isinstance(option.type, click.Choice):
        value, choices = Value.CHOICE, tuple(str(choice) for choice in option.type.choices)
    elif isinstance(option.type, click.Path) or option.metavar == "FILE":
        value = Value.FILE
    record = option.get_help_record(context)
    takes_value = not option.is_flag and not option.count
    return Option(
        names=(*option.opts, *option.secondary_opts),
        metavar=option.make_metavar(context) if takes_value else "",
        value=value,
        choices=choices,
        help=record[1] if record else "",
    )
