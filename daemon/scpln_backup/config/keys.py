"""The keys of the configuration as a list, read from the types: for errors, the example, the schema."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Meta, Struct

from scpln_backup.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_WORDS = ("token", "password", "passphrase", "secret", "routing_key", "api_key", "credential")

# What is bound to the daemon's process: its lock lies in the state folder, its web server listens. A reload changes
# every other key.
NEEDS_RESTART = frozenset({"state.directory", "web.listen", "web.max_connections"})


class Key(Struct, frozen=True, kw_only=True):
    """One key. `section` is "" for those at the top; `default` is as TOML writes it (lists, plain strings)."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    must: str

    @property
    def path(self) -> str:
        """`retention.days`"""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def label(self) -> str:
        """`[retention] days`: as it is found in the file."""
        return f"[{self.section}] {self.name}" if self.section else self.name


@cache
def keys() -> tuple[Key, ...]:
    """Every key in the order of the example: those at the top, then section by section."""
    top = [_key("", field) for field in msgspec.structs.fields(Config) if field.name not in sections()]
    rest = [_key(name, field) for name, kind in sections().items() for field in msgspec.structs.fields(kind)]
    return (*top, *rest)


@cache
def sections() -> Mapping[str, type[Struct]]:
    return {
        field.name: field.type
        for field in msgspec.structs.fields(Config)
        if isinstance(field.type, type) and issubclass(field.type, Struct)
    }


def section_description(name: str) -> str:
    return " ".join((sections()[name].__doc__ or "").split())


def is_secret(name: str) -> bool:
    """Whether a key of this name would hold a secret itself, rather than name the file that does."""
    return not name.endswith("_file") and any(word in name.lower() for word in SECRET_WORDS)


def plain(config: Config) -> dict[str, Any]:
    """Path of each key -> its value as TOML writes it."""
    tree = msgspec.to_builtins(config)
    return {key.path: _at(tree, key) for key in keys()}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `plain` as the tables of a TOML document."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _at(tree: Mapping[str, Any], key: Key) -> Any:
    value = (tree[key.section] if key.section else tree)[key.name]
    return list(value) if isinstance(value, tuple) else value


def _key(section: str, field: msgspec.structs.FieldInfo) -> Key:
    metas = [meta for meta in field.type.__metadata__ if isinstance(meta, Meta)]
    described = [meta.description for meta in metas if meta.description]
    worded = [meta.extra["must"] for meta in metas if meta.extra]
    default = msgspec.to_builtins(field.default)
    return Key(
        section=section,
        name=field.name,
        type=field.type,
        default=list(default) if isinstance(default, tuple) else default,
        description=described[-1],
        must=worded[-1] if worded else _must(field.type.__origin__, metas),
    )


def _must(kind: type, metas: list[Meta]) -> str:
    """What a value has to be, worded from its type and bounds."""
    if issubclass(kind, StrEnum):
        return "one of " + ", ".join(f'"{each.value}"' for each in kind)
    if kind is bool:
        return "true or false"
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    above = next((meta.gt for meta in metas if meta.gt is not None), None)
    high = next(meta.le for meta in metas if meta.le is not None)
    number = "a whole number" if kind is int else "a number"
    return f"{number} from {low} to {high}" if above is None else f"{number} above {above} and up to {high}"
