"""The application's own settings that this program needs: SCPLN_DB and REGISTRY_BACKEND.

They are read with python-dotenv, without expanding variables and without touching this process's environment.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from scpln_backup.config.checks import unprintable
from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DATABASE = "SCPLN_DB"
BACKEND = "REGISTRY_BACKEND"
VARIABLE = re.compile(r"\$[({A-Za-z_]")


class Setting(Struct, frozen=True):
    """A value, and where it stands in words."""

    value: str
    where: str


class EnvFile(Struct, frozen=True):
    """What a .env sets. An empty value counts as unset, as `${SCPLN_DB:-…}` has it in the shell."""

    path: Path
    settings: dict[str, Setting]
    warnings: tuple[str, ...] = ()

    def get(self, name: str) -> Setting | None:
        return self.settings.get(name)

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the settings that mean nothing to this program."""
        return tuple(name for name in self.settings if name not in (DATABASE, BACKEND))


def from_environment(environ: Mapping[str, str], name: str) -> Setting | None:
    value = environ.get(name, "").strip()
    return Setting(value, f"{name} in the environment") if value else None


def read_env_file(path: Path) -> EnvFile | None:
    """What the .env at `path` sets, None when there is no such file.

    A line that is no assignment is a warning; when it names one of our settings, or the file cannot be read,
    it is a ConfigError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; the daemon's user needs to read it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: it is not UTF-8 text") from error

    # parse_stream rather than dotenv_values: it tells the line, and a line that is no assignment.
    from dotenv.parser import parse_stream  # noqa: PLC0415 - 20 ms that a host without a .env need not spend

    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        place = f"{path}:{binding.original.line}"
        if binding.error:
            if DATABASE in binding.original.string or BACKEND in binding.original.string:
                raise ConfigError(f"{place}: this is not NAME=VALUE; check the quotes")
            warnings.append(f"{place}: this is not NAME=VALUE; the line is ignored")
        elif binding.key is not None:
            settings.pop(binding.key, None)
            if binding.value:
                settings[binding.key] = Setting(binding.value, f"{binding.key} in {place}")
    return EnvFile(path, settings, tuple(warnings))


def database_path(setting: Setting, base: Path, *, from_shell: bool) -> str:
    """The absolute path that SCPLN_DB names; a relative one is relative to `base`.

    `from_shell`: the value came from the environment, where a shell expanded it already.
    """
    value = setting.value
    if reason := unprintable(value):
        raise ConfigError(f"{setting.where}: {reason}")
    if re.match(r"[a-z+]+://|file:|:memory:", value, re.IGNORECASE):
        raise ConfigError(f"{setting.where}: an address is not a path; only a database in a file can be backed up")
    if value.startswith("~") or (not from_shell and VARIABLE.search(value)):
        raise ConfigError(f'{setting.where}: "{value}": ~ and variables are not expanded; write the path out')
    return str(base / value)


def check_backend(setting: Setting | None) -> None:
    """ConfigError unless the application keeps its data in the database, as the backup procedure presumes."""
    if setting is None or setting.value == "db":
        return
    # An address with a password in it is not repeated.
    value = f'"{setting.value}"' if re.fullmatch("[A-Za-z0-9_-]{1,32}", setting.value) else "something else"
    raise ConfigError(
        f'{setting.where} is {value}, not "db": the application does not keep its data in the SQLite database then, '
        f"and a backup of that would be worthless; set {BACKEND}=db or do not run this here"
    )
