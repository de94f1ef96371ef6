"""Configuration files as text: the example, and what `config init` writes. Nothing is written to disk here."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import msgspec
import tomli_w
from msgspec import Struct

from scpln_backup.config.envfile import BACKEND, DATABASE, check_backend, database_path, read_env_file
from scpln_backup.config.keys import Key, keys, nested, section_description
from scpln_backup.config.parse import parse
from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTH = 100
EXAMPLE_HEAD = """\
Every key of scpln-backup with its default; a key that is left out keeps it. The file is checked as a
whole, an unknown key is refused: `scpln-backup config check`. Secrets are never written here, only the
names of their files.
"""
INIT_HEAD = """\
Configuration of scpln-backup. A line that begins with # and no space shows a default: take the # away to
change it. Then `scpln-backup config check`. Secrets are never written here, only the names of their files.
"""


class Draft(Struct, frozen=True):
    """A new configuration: `values` by path (`backup.root`), and `notes` on where they come from.

    `unused` are the names of the .env's settings that mean nothing here, `warnings` its bad lines.
    """

    values: dict[str, Any]
    notes: dict[str, str] = {}
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The file: what is set, and every other key commented out with its default."""
        return _render(INIT_HEAD, self.values, self.notes)


def example() -> str:
    """config.example.toml: every key with its default."""
    return _render(EXAMPLE_HEAD, {key.path: key.default for key in keys()}, {})


def init(env_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Draft:
    """A commented configuration; keys that nothing sets are commented out with their defaults.

    `env_file` is a .env to take over. `overrides` are typed values by path (`{"backup.root": "/mnt/b"}`), which
    win. ConfigError: the .env is missing or names another backend than db, or an override is wrong.
    """
    draft = from_env(env_file) if env_file else Draft({})
    values = {**draft.values, **(overrides or {})}
    parse(nested(values), "config init")
    return msgspec.structs.replace(draft, values=values)


def from_env(env_file: Path) -> Draft:
    """The configuration for an application with this .env: it names the file, and the database found in it."""
    env_file = env_file.absolute()
    found = read_env_file(env_file)
    if found is None:
        raise ConfigError(f"{env_file}: no such file; name the application's .env")
    check_backend(found.get(BACKEND))
    values: dict[str, Any] = {"database.env_file": str(env_file)}
    notes = {}
    if setting := found.get(DATABASE):
        values["database.path"] = database_path(setting, env_file.parent, from_shell=False)
        notes["database.path"] = f"Taken from {setting.where}."
    parse(nested(values), "config init")
    return Draft(values, notes, found.unused, found.warnings)


def assignment(name: str, value: Any) -> str:
    """`name = value` as TOML in one line."""
    # Not splitlines(): TOML ends lines at \n only, and strings may hold what Unicode calls a line's end.
    first, *items = tomli_w.dumps({name: value}).removesuffix("\n").split("\n")
    if not items:
        return first
    # tomli-w gives each item of a list a line of its own.
    return first + ", ".join(item.strip().removesuffix(",") for item in items[:-1]) + "]"


def _render(head: str, values: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    blocks = [_comment(head)]
    section = ""
    for key in keys():
        if key.section != section:
            section = key.section
            blocks.append(f"\n{_comment(section_description(section))}\n[{section}]")
        blocks.append(_entry(key, values, notes.get(key.path, "")))
    return "\n\n".join(blocks) + "\n"


def _entry(key: Key, values: Mapping[str, Any], note: str) -> str:
    text = f"{key.description} {note}".strip()
    if key.path in values:
        return f"{_comment(text)}\n{assignment(key.name, values[key.path])}"
    return f"{_comment(text)}\n#{assignment(key.name, key.default)}"


def _comment(text: str) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
