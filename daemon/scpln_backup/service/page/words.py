"""Times, durations, sizes and reasons as the reader of the page says them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from scpln_backup.config.schema import Locale
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from datetime import date, datetime, tzinfo

    from scpln_backup.rules.reasons import Reason
    from scpln_backup.service.page.texts import Texts

_MINUTE = 60
_COMMAND = re.compile(r"`([^`]+)`")
_JAPANESE_UNITS = {"ms": "ミリ秒", "s": "秒", "min": "分", "h": "時間", "d": "日"}


class Words:
    """One page's way to say things: in `locale`, by the clocks of `zone`, at the time `now`."""

    def __init__(self, texts: Texts, locale: Locale, zone: tzinfo, now: datetime) -> None:
        self._texts = texts
        self._locale = locale
        self._zone = zone
        self._now = now

    def minute(self, at: datetime) -> str:
        """`2026-11-22 02:30`, local."""
        return f"{at.astimezone(self._zone):%Y-%m-%d %H:%M}"

    def zoned(self, at: datetime) -> str:
        """`2026-11-22 02:30 JST`."""
        return f"{at.astimezone(self._zone):%Y-%m-%d %H:%M %Z}"

    def machine(self, at: datetime) -> str:
        """For the attribute `datetime`: the instant, with its offset."""
        return at.astimezone(self._zone).isoformat(timespec="seconds")

    def relative(self, at: datetime) -> str:
        """How long ago, or how long until then; to the minute, or to the second within the last one."""
        seconds = at.timestamp() - self._now.timestamp()
        return (self._texts.in_future if seconds > 0 else self._texts.ago).format(self.between(at))

    def between(self, at: datetime) -> str:
        """How long it is from then to now, or from now to then; nobody counts the tenths of it."""
        seconds = int(abs(at.timestamp() - self._now.timestamp()))
        if seconds < _MINUTE:
            return self._in_units(f"{seconds} s")
        return self.duration(seconds // _MINUTE * _MINUTE)

    def past(self, at: datetime) -> bool:
        return at.timestamp() < self._now.timestamp()

    def duration(self, seconds: float) -> str:
        return self._in_units(human_duration(seconds))

    def _in_units(self, text: str) -> str:
        """`text` is an English duration, of figures and units in turn."""
        if self._locale is Locale.EN:
            return text
        return "".join(_JAPANESE_UNITS.get(part, part) for part in text.split())

    def size(self, count: float) -> str:
        return human_bytes(round(count))

    def day(self, day: date) -> str:
        """Month and day, short."""
        return self._texts.day.format(month=day.month, day=day.day)

    def reason(self, reason: Reason) -> str:
        return reason.english if self._locale is Locale.EN else reason.japanese


def with_commands(text: str) -> Markup:
    """`text` with what stands between backticks as code, all of it escaped."""
    # split() gives text, command, text, command, …, text.
    parts = _COMMAND.split(text)
    return Markup().join(_command(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def _command(text: str) -> Markup:
    """Its words apart, so that the style can keep a line from ending within one, at a hyphen."""
    words = Markup(" ").join(Markup("<span>{}</span>").format(word) for word in text.split())
    return Markup("<code>{}</code>").format(words)
