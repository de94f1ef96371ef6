"""The effective configuration and its JSON Schema, for people and programs to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.config.keys import is_secret, keys, nested, plain, section_description, sections
from scpln_backup.config.schema import Config
from scpln_backup.config.write import assignment

if TYPE_CHECKING:
    from scpln_backup.config.load import Loaded

HIDDEN = "********"
CREDENTIAL = "credential:"


def as_toml(loaded: Loaded) -> str:
    """The effective configuration as TOML, each value followed by where it came from."""
    values = effective(loaded.config)
    lines = [f"# What {loaded.path} gives."]
    lines += [f"# Warning: {warning}" for warning in loaded.warnings]
    section = ""
    for key in keys():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        value = values[key.path]
        where = _where(loaded, key.path, value)
        if key.path == "schedule.timezone" and not value:
            where += f" (the host's, {loaded.config.timezone.key})"
        lines.append(f"{assignment(key.name, value)}  # {where}")
    return "\n".join(lines) + "\n"


def as_dict(loaded: Loaded) -> dict[str, Any]:
    """The same for JSON: `path`, `config` (nested like the file), `origins` by key path, `warnings`."""
    values = effective(loaded.config)
    return {
        "path": str(loaded.path),
        "config": nested(values),
        "origins": {
            path: {"source": origin.source.value, "where": _where(loaded, path, values[path])}
            for path, origin in loaded.origins.items()
        },
        "warnings": list(loaded.warnings),
    }


def _where(loaded: Loaded, path: str, value: Any) -> str:
    """Where a value came from; of a secret that systemd hands to the unit, that it does."""
    where = loaded.origins[path].where
    credential = isinstance(value, str) and value.startswith(CREDENTIAL)
    return f"{where} (from a credential of the unit)" if credential else where


def effective(config: Config) -> dict[str, Any]:
    """Path of each key -> its value, secrets hidden. The name of a secret's file is no secret."""
    return hide(plain(config))


def hide(values: dict[str, Any]) -> dict[str, Any]:
    return {path: HIDDEN if is_secret(path.rpartition(".")[2]) else value for path, value in values.items()}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the configuration file."""
    schema = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Config)))  # defaults: lists for tuples
    definitions = schema["$defs"]
    for name, kind in sections().items():
        definitions[kind.__name__]["title"] = f"[{name}]"
        definitions[kind.__name__]["description"] = section_description(name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "scpln-backup configuration",
        **schema,
    }
