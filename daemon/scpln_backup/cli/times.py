"""Times as people type them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


def parse_time(text: str, zone: ZoneInfo, option: str) -> datetime:
    """ISO 8601, in `zone` where it names none; click.BadParameter, naming the option, for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is not a time; write it as 2026-11-22, 2026-11-22T02:30 or 2026-11-22T02:30+09:00"
        raise click.BadParameter(message, param_hint=option) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
