"""Whether a snapshot shrank so much that it may be a good copy of a damaged or emptied database."""

from __future__ import annotations

from datetime import UTC
from fractions import Fraction
from typing import TYPE_CHECKING

from scpln_backup.model import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scpln_backup.model import Fingerprint, Manifest

_COMPARED = 7


def suspicion(snapshot: Fingerprint, recent: Sequence[Manifest], percent: int) -> str | None:
    """Why the snapshot is suspect, in one line, or None.

    It is when its rows or its size are smaller, by more than `percent`, than the median of the newest 7
    verified artifacts in `recent` (any order). Where an operator accepted a shrink, only artifacts taken at or
    after the newest accepted one count. With nothing to compare with there is no suspicion.
    """
    compared = _baseline(recent)
    if not compared:
        return None
    falls = (
        _fall("rows", [fingerprint.rows for fingerprint in compared], snapshot.rows, percent),
        _fall("bytes", [fingerprint.size_bytes for fingerprint in compared], snapshot.size_bytes, percent),
    )
    return "; ".join(fall for fall in falls if fall is not None) or None


def _baseline(recent: Sequence[Manifest]) -> list[Fingerprint]:
    accepted = [m.taken_at.astimezone(UTC) for m in recent if m.accepted_at is not None]
    counting = [m for m in recent if m.state is State.VERIFIED]
    if accepted:
        since = max(accepted)
        counting = [m for m in counting if m.taken_at.astimezone(UTC) >= since]
    newest = sorted(counting, key=lambda m: m.taken_at.astimezone(UTC), reverse=True)[:_COMPARED]
    return [m.fingerprint for m in newest if m.fingerprint is not None]


def _median(values: list[int]) -> Fraction:
    """Exact, unlike statistics.median, which answers an even count with a float."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return Fraction(ordered[middle] + ordered[~middle], 2)


def _fall(what: str, before: list[int], now: int, percent: int) -> str | None:
    median = _median(before)
    if median == 0 or (median - now) * 100 <= median * percent:
        return None
    among = f"median of the last {len(before)}" if len(before) > 1 else "the last one"
    share = round((median - now) * 100 / median)
    by = f"{share} %: more than {percent} %" if share > percent else f"just over {percent} %"
    return f"{what} fell from {int(median):,} ({among}) to {now:,}, by {by}"
