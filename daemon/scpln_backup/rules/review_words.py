"""How a review says times, sizes, durations and errors, in one language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.rules.markdown import code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.rules.review_texts import Texts

_LISTED = 10
_MINUS = "\N{MINUS SIGN}"


class Words:
    """`size` and `duration` (support.text) give bytes and seconds as people read them, in English."""

    def __init__(
        self, texts: Texts, zone: tzinfo, *, size: Callable[[int], str], duration: Callable[[float], str]
    ) -> None:
        self.texts = texts
        self._zone = zone
        self._size = size
        self._duration_in_english = duration

    def at(self, at: datetime) -> str:
        return f"{at.astimezone(self._zone):%Y-%m-%d %H:%M}"

    def listed(self, times: Sequence[datetime]) -> str:
        """The first ones, and how many more."""
        shown = [self.at(at) for at in times[:_LISTED]]
        if len(times) > _LISTED:
            shown.append(self.texts.and_more.format(count=len(times) - _LISTED))
        return self.texts.separator.join(shown)

    def said(self, text: str | None) -> str:
        """What a program said."""
        return code(text) if text and text.strip() else self.texts.unknown

    def bytes(self, value: float) -> str:
        return self._size(round(value))

    def duration(self, seconds: float) -> str:
        t = self.texts
        words = self._duration_in_english(max(seconds, 0.0)).split()
        parts = zip(words[::2], words[1::2], strict=True)
        return t.unit_gap.join(f"{number}{t.unit_space}{t.units[unit]}" for number, unit in parts)


def percent(now: float, before: float) -> str:
    """By how much `now` is more than `before`, which is not 0."""
    change = (now - before) * 100 / before
    if round(abs(change), 1) == 0:
        return "±0 %"
    return f"{'+' if change > 0 else _MINUS}{abs(change):,.1f} %"
