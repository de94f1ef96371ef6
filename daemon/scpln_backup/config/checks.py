"""What a type cannot say of a value: is it an address, a crontab expression, a zone?

Every check gets a value of the right type and gives the reason why it is refused, or None.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from scpln_backup.config.zone import find_zone
from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MAX_PORT = 65_535
CRON_FIELDS = 5


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. ValueError, with the reason: it is something else."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > MAX_PORT:
        raise ValueError(f"must be HOST:PORT with a port from 0 to {MAX_PORT}")
    if not host or host == "*":
        raise ValueError(f'must name a host; "0.0.0.0:{port}" or "[::]:{port}" listens on every interface')
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1])), int(port)
    if ":" in host:
        raise ValueError(f'must have an IPv6 address in brackets, such as "[::1]:{port}"')
    if re.fullmatch(r"[0-9.]+", host):
        return str(ipaddress.IPv4Address(host)), int(port)
    if not HOST_NAME.fullmatch(host):
        raise ValueError("must be HOST:PORT, where HOST is an address or a host name")
    return host, int(port)


def unprintable(text: str) -> str | None:
    if UNPRINTABLE.search(text):
        return "must not contain control characters, nor bytes that are not UTF-8"
    return None


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    folded = {each.casefold(): each for each in known}
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _listen(value: str) -> str | None:
    try:
        parse_listen(value)
    except ValueError as error:
        reason = str(error)
        return reason if reason.startswith("must") else f"must have a valid address: {reason}"
    return None


def _zone(value: str) -> str | None:
    try:
        find_zone(value)
    except ConfigError as error:
        if not value:
            return f"must be set: {error}"
        from zoneinfo import available_timezones  # noqa: PLC0415 - walks the zone folder: only for a mistake

        meant = nearest(value, sorted(available_timezones()))
        hint = f'; did you mean "{meant}"?' if meant else ' such as "Asia/Tokyo"'
        return f"must be an IANA time zone{hint}"
    return None


def _cron(value: str) -> str | None:
    """Whether cronsim reads it and it ever comes. Six fields (seconds) and @daily are not crontab(5)'s."""
    from datetime import datetime  # noqa: PLC0415 - with cronsim

    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - 4 ms that `--help` can do without

    fields = len(value.split())
    if fields != CRON_FIELDS:
        return f'must have five fields (minute hour day month weekday, such as "30 2 * * *"), not {fields}'
    try:
        coming = next(CronSim(value, datetime(2024, 1, 1)), None)  # noqa: DTZ001 - any local time will do
    except CronSimError as error:
        return f"must be a crontab expression: {str(error).lower()}"
    except (ValueError, OverflowError):  # a number of thousands of digits, a day of the year 10000
        coming = None
    return None if coming else "must be a crontab expression that comes true some day"


def _url(value: str) -> str | None:
    """An address with a host and without a password, which `config show` and the log would print."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - only a configured address needs it

    if not value:
        return None
    try:
        parts = urlsplit(value)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or any(c.isspace() for c in value):
        return "must be an http:// or https:// address with a host and, if any, a valid port"
    if "@" in parts.netloc:
        return "must not hold a user name or password: secrets are never written here"
    return None


def _needed_url(value: str) -> str | None:
    return _url(value) if value else "must be an address; leave the key out for the usual one"


def _command(value: Sequence[str]) -> str | None:
    return "must begin with the name of a program" if value and not value[0].strip() else None


CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    "schedule.timezone": _zone,
    "schedule.backup": _cron,
    "schedule.drill": _cron,
    "schedule.review": _cron,
    "web.listen": _listen,
    "web.url": _url,
    "service.health_url": _url,
    "drill.command": _command,
    "rebuild.command": _command,
    "pushgateway.url": _url,
    "slack.api_url": _needed_url,
    "pagerduty.url": _needed_url,
    "jira.url": _url,
}
