"""Time zones by name, and the host's own."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from scpln_backup.errors import ConfigError

LOCALTIME = Path("/etc/localtime")


def find_zone(name: str) -> ZoneInfo:
    """The zone called `name`; "" is the host's: TZ, else /etc/localtime, else UTC, as tzset(3) has it.

    The host's is looked up once per process, as the C library does. ConfigError: there is no such zone.
    """
    if not name:
        return _host_zone(os.environ.get("TZ"))
    return _named(name)


def _named(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: "Asia" is a folder
        raise ConfigError(f'no time zone is called "{name}"') from error


@cache
def _host_zone(tz: str | None) -> ZoneInfo:
    if tz is not None:
        return _zone_of_tz(tz.removeprefix(":"))
    try:
        # The link's target names the zone: /usr/share/zoneinfo/Asia/Tokyo.
        _, found, name = str(LOCALTIME.resolve(strict=True)).rpartition("/zoneinfo/")
        return _named(name) if found else _from_file(LOCALTIME)
    except FileNotFoundError:
        return ZoneInfo("UTC")
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f"{LOCALTIME}: the host's time zone cannot be read: {error}") from error


def _zone_of_tz(tz: str) -> ZoneInfo:
    try:
        if tz.startswith("/"):
            return _from_file(Path(tz))
        return _named(tz or "UTC")
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f'TZ is "{tz}", which does not name an IANA zone; set timezone in [schedule]') from error


def _from_file(path: Path) -> ZoneInfo:
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key="localtime")
