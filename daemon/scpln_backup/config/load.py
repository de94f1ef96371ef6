"""Loading the configuration: once, at the border. Inside, only typed values."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from scpln_backup.config.envfile import (
    BACKEND,
    DATABASE,
    EnvFile,
    check_backend,
    database_path,
    from_environment,
    read_env_file,
)
from scpln_backup.config.keys import keys
from scpln_backup.config.parse import given, parse
from scpln_backup.config.schema import DatabaseConfig
from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.config.schema import Config

DEFAULT_CONFIG = Path("/etc/scpln-backup/config.toml")
CONFIG_VARIABLE = "SCPLN_BACKUP_CONFIG"


class Source(StrEnum):
    """What a value can come from, weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENV_FILE = "env-file"
    ENVIRONMENT = "environment"


class Origin(Struct, frozen=True):
    """Where a value came from; `where` says it in words."""

    source: Source
    where: str


class Loaded(Struct, frozen=True, kw_only=True):
    """The configuration and what is known about it.

    `origins` has each key's path (`retention.days`). `backend` is where REGISTRY_BACKEND=db was found, None when
    it is set nowhere. `warnings` are lines that the operator should see.
    """

    config: Config
    path: Path
    origins: dict[str, Origin]
    backend: Origin | None
    warnings: tuple[str, ...]


def find_config(option: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The configuration's file: the option, else $SCPLN_BACKUP_CONFIG, else /etc/scpln-backup/config.toml."""
    return Path(option or environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The checked configuration, with SCPLN_DB resolved into `database.path`; see `load_with_origins`."""
    return load_with_origins(path, environ).config


def load_with_origins(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Reads the file (`find_config` where `path` is None) and the .env it names.

    ConfigError: a file is missing or unreadable, a key is unknown or wrong (a line for each), or the application
    does not keep its data in the database.
    """
    path = path or find_config(None, environ)
    tables = read_toml(path)
    config = parse(tables, str(path))
    in_file = given(tables)
    env_file = _env_file(config, path)

    origins = {
        key.path: Origin(Source.FILE, str(path)) if key.path in in_file else Origin(Source.DEFAULT, "default")
        for key in keys()
    }
    warnings = list(env_file.warnings) if env_file else []
    if env_file is None and config.database.env_file and "database.env_file" in in_file:
        warnings.append(f"{config.database.env_file}: no such file; SCPLN_DB is looked for in the environment only")
    if found := _database(environ, env_file):
        resolved, origin = found
        if "database.path" in in_file and config.database.path != resolved:
            warnings.append(f"{path}: [database] path is not used: {origin.where} wins, with {resolved}")
        origins["database.path"] = origin
        config = msgspec.structs.replace(config, database=msgspec.structs.replace(config.database, path=resolved))
    return Loaded(
        config=config,
        path=path,
        origins=origins,
        backend=_backend(environ, env_file),
        warnings=tuple(warnings),
    )


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. ConfigError: it cannot be read, or is not TOML (with the line)."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path}: no such configuration; make one with `scpln-backup -c {path} config init`"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: not TOML: the text is not UTF-8 (at line {line})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _env_file(config: Config, path: Path) -> EnvFile | None:
    """The .env. It may be absent where it is the default one, which the example names as well."""
    name = config.database.env_file
    if not name:
        return None
    env_file = read_env_file(Path(name))
    if env_file is None and name != DatabaseConfig().env_file:
        raise ConfigError(f'{path}: [database] env_file = "{name}": no such file; "" reads none')
    return env_file


def _database(environ: Mapping[str, str], env_file: EnvFile | None) -> tuple[str, Origin] | None:
    if setting := from_environment(environ, DATABASE):
        return (
            database_path(setting, Path.cwd(), from_shell=True),
            Origin(Source.ENVIRONMENT, setting.where),
        )
    if env_file and (setting := env_file.get(DATABASE)):
        return (
            database_path(setting, env_file.path.parent, from_shell=False),
            Origin(Source.ENV_FILE, setting.where),
        )
    return None


def _backend(environ: Mapping[str, str], env_file: EnvFile | None) -> Origin | None:
    source = Source.ENVIRONMENT
    setting = from_environment(environ, BACKEND)
    if setting is None and env_file:
        source, setting = Source.ENV_FILE, env_file.get(BACKEND)
    check_backend(setting)
    return Origin(source, setting.where) if setting else None
