"""Whole values on their way into JSON and back: what JSON and SQLite cannot hold is changed, however deep it lies."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from scpln_backup.records.rows import storable

if TYPE_CHECKING:
    from collections.abc import Callable

V = TypeVar("V")


def encodable(value: V) -> V:
    """`value` (a struct, an event, a tuple of them) as msgspec can write it: texts that are UTF-8, times in UTC.

    RFC 3339 has offsets of whole minutes; a local mean time of long ago has seconds.
    """
    changed: V = _each(value, lambda leaf: storable(leaf) if isinstance(leaf, str) else _moved(leaf, UTC))
    return changed


def in_zone(value: V, zone: tzinfo) -> V:
    """`value` with all its times in `zone`: JSON keeps the instant and an offset, the zone has to be given again."""
    changed: V = _each(value, lambda leaf: _moved(leaf, zone))
    return changed


def _each(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """`value` with every plain value in it changed by `leaf`."""
    if isinstance(value, msgspec.Struct):
        changed = {name: _each(getattr(value, name), leaf) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_each(item, leaf) for item in value)
    return leaf(value)


def _moved(value: Any, zone: tzinfo) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        with suppress(OverflowError):  # the first or last day that there is: it stays in the zone it has
            return value.astimezone(zone)
    return value
