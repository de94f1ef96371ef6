"""Datetimes as the catalog stores them: microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """`at` must be aware (TypeError)."""
    return (at - _EPOCH) // _MICROSECOND


def optional_micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def from_micros(micros: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(zone)


def optional_datetime(micros: int | None, zone: tzinfo) -> datetime | None:
    return None if micros is None else from_micros(micros, zone)
