"""What ^C means while something is under way: give it up at the next safe point, and leave nothing half-made."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130


@contextmanager
def cancelled_by_signals() -> Iterator[threading.Event]:
    """An event that ^C, SIGTERM or a closed terminal sets: the run is given up, and cleared away, at a safe point."""
    cancel = threading.Event()

    def set_cancel(_number: int, _frame: FrameType | None) -> None:
        cancel.set()

    before = {number: signal.signal(number, set_cancel) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
