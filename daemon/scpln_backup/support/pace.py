"""A token bucket: no more than so many bytes a second."""

from __future__ import annotations

import math

_BURST_SECONDS = 0.1


class Pace:
    """`bytes_per_second` of 0 sets no limit. What was not used up is saved for a tenth of a second, no longer."""

    def __init__(self, bytes_per_second: float) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._paid_until = -math.inf

    def delay(self, size: int, now: float) -> float:
        """Seconds to wait after `size` more bytes were done at `now` (monotonic seconds), before the next are."""
        self._paid_until = max(self._paid_until, now - _BURST_SECONDS) + size * self._seconds_per_byte
        return max(0.0, self._paid_until - now)
