"""Which language a reader wants, by the Accept-Language of the browser (RFC 9110, 12.5.4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scpln_backup.config.schema import Locale

if TYPE_CHECKING:
    from collections.abc import Iterator

# A language range with its weight, which has at most three decimals.
_RANGE = re.compile(
    r"(\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)


def preferred(header: str, default: Locale) -> Locale:
    """The locale that the reader likes best; `default` where the header names none of ours, or is no such header.

    `ja-JP` stands for `ja`. Of two that are liked alike the one named first wins, and `default` under a wildcard.
    """
    ranges = list(_ranges(header))
    best, best_rank = default, (0.0, 0)
    for locale in (default, *(other for other in Locale if other is not default)):
        named = [(weight, -place) for place, (tag, weight) in enumerate(ranges) if tag == locale.value]
        wild = [(weight, -len(ranges)) for tag, weight in ranges if tag == "*"]
        rank = max(named or wild, default=(0.0, 0))
        if rank[0] > 0 and (best_rank[0] == 0 or rank > best_rank):
            best, best_rank = locale, rank
    return best


def _ranges(header: str) -> Iterator[tuple[str, float]]:
    """The primary subtags in small letters with their weights; what is no language range is left out."""
    for part in header.split(","):
        found = _RANGE.fullmatch(part.strip(" \t"))
        if found is not None:
            tag, weight = found.groups()
            yield tag.partition("-")[0].lower(), 1.0 if weight is None else float(weight)
