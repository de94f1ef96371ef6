"""From the tables of a TOML document to a Config, naming every mistake by its key."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.config.checks import CHECKS, nearest, unprintable
from scpln_backup.config.keys import Key, is_secret, keys, nested, plain, sections
from scpln_backup.config.schema import Config
from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHOWN_CHARACTERS = 60
BARE_KEY = re.compile("[A-Za-z0-9_-]+")


def parse(tables: Mapping[str, Any], where: str) -> Config:
    """The configuration that `tables` gives, the rest by default.

    ConfigError: one line for each mistake, beginning with `where` (the file) and the key.
    """
    problems: list[str] = []
    good: dict[str, Any] = {}
    doubted: set[str] = set()
    known = {key.path: key for key in keys()}
    for section, name, value in _flat(tables, problems):
        key = next((key for key in known.values() if (key.section, key.name) == (section, name)), None)
        if key is None:
            problems.append(_unknown(section, name))
        elif problem := _wrong(key, value):
            problems.append(problem)
            doubted.add(key.path)
        else:
            good[key.path] = value
    config = msgspec.convert(nested(good), Config)
    problems.extend(_failed_checks(config, known, doubted))
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def given(tables: Mapping[str, Any]) -> set[str]:
    """Paths of the keys that `tables`, already parsed without a problem, sets."""
    return {f"{section}.{name}" if section else name for section, name, _ in _flat(tables, [])}


def _flat(tables: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Section ("" at the top), name and value of each key. What is no key is added to `problems`."""
    top = {key.name for key in keys() if not key.section}
    for name, value in tables.items():
        if name in sections():
            if isinstance(value, dict):
                yield from ((name, inner, each) for inner, each in value.items())
            else:
                problems.append(f"{name}: must be a section, [{name}], that stands once")
        elif isinstance(value, dict) and name not in top:
            problems.append(_unknown_section(name))
        else:
            yield "", name, value


def _unknown_section(name: str) -> str:
    meant = nearest(name, list(sections()))
    return f"[{_written(name)}]: unknown section" + (f"; did you mean [{meant}]?" if meant else "")


def _unknown(section: str, name: str) -> str:
    """Why there is no such key. The value is never shown: it may be a secret."""
    label = f"[{section}] {_written(name)}" if section else _written(name)
    mates = [key.name for key in keys() if key.section == section]
    if f"{name}_file" in mates:
        return f"{label}: secrets are never written here; put it into a file and name that with {name}_file"
    elsewhere = next((key for key in keys() if key.name == name), None)
    if elsewhere is not None:
        place = f"in [{elsewhere.section}]" if elsewhere.section else "at the top, before the first section"
        return f"{label}: unknown key; {name} belongs {place}"
    if meant := nearest(name, mates):
        return f'{label}: unknown key; did you mean "{meant}"?'
    if is_secret(name):
        return f"{label}: unknown key; secrets are never written here, only the name of their file (…_file)"
    return f"{label}: unknown key" + (f"; [{section}] has {', '.join(mates)}" if section else "")


def _wrong(key: Key, value: object) -> str | None:
    try:
        msgspec.convert(value, type=key.type)
    except msgspec.ValidationError:
        return _refused(key, value, f"must be {key.must}{_meant(key, value)}")
    reason = next(filter(None, map(unprintable, _strings(value))), None)
    return _refused(key, value, reason) if reason else None


def _refused(key: Key, value: object, reason: str) -> str:
    # What was put into an address, or in the place of a secret's file, may be the secret itself.
    hidden = key.name.endswith("url") or is_secret(key.name.removesuffix("_file"))
    shown = "" if hidden else f" = {_shown(value)}"
    return f"{key.label}{shown}: {reason}"


def _meant(key: Key, value: object) -> str:
    kind = key.type.__origin__
    if not (isinstance(value, str) and isinstance(kind, type) and issubclass(kind, StrEnum)):
        return ""
    meant = nearest(value, [each.value for each in kind])
    return f'; did you mean "{meant}"?' if meant else ""


def _failed_checks(config: Config, known: Mapping[str, Key], doubted: set[str]) -> Iterator[str]:
    """What the types cannot see; keys that were refused already are left alone."""
    values = plain(config)
    for path, check in CHECKS.items():
        if path not in doubted and (reason := check(values[path])):
            yield _refused(known[path], values[path], reason)
    jira = {path: values[path] for path in ("jira.url", "jira.token_file", "jira.project")}
    if any(jira.values()) and not doubted & jira.keys():
        yield from (
            f"{known[path].label}: missing; Jira needs url, token_file and project, or none of them"
            for path, value in jira.items()
            if not value
        )


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _written(name: str) -> str:
    """A key as TOML writes it, in quotes where it needs them."""
    return name if BARE_KEY.fullmatch(name) else json.dumps(name)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
