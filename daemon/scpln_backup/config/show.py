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
        where = loaded.origins[key.path].where
        if key.path == "schedule.timezone" and not values[key.path]:
            where += f" (the host's, {loaded.config.timezone.key})"
        lines.append(f"{assignment(key.name, values[key.path])}  # {where}")
    return "\n".join(lines) + "\n"


def as_dict(loaded: Loaded) -> dict[str, Any]:
    """The same for JSON: `path`, `config` (nested like the file), `origins` by key path, `warnings`."""
    return {
        "path": str(loaded.path),
        "config": nested(effective(loaded.config)),
        "origins": {
            path: {"source": origin.source.value, "where": origin.where} for path, origin in loaded.origins.items()
        },
        "warnings": list(loaded.warnings),
    }


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
