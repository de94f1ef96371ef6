"""The one place that starts processes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A plain `systemctl kill -s USR1` reaches every process of the unit's control group, and the default action of
# SIGUSR1 and SIGHUP is death.  Blocked here, they stay blocked in the child through fork and exec, so there is no
# moment at which they could end it.
SHIELDED = (signal.SIGUSR1, signal.SIGHUP)

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {module} import main; main()"
_PR_SET_PDEATHSIG = 1


@contextmanager
def shielded() -> Iterator[None]:
    """Block the signals that children must not get, in the calling thread, while a child is started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(module: str, *, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start `main()` of a module of this package in a process of its own, with pipes to stdin and stdout.

    It gets a session of its own, so that ^C at a terminal reaches the caller alone.  The module should call
    `die_with_parent` first thing.  `pass_fds` stay open in it (a lock that lasts as long as either lives).
    """
    boot = _BOOT.format(module=module)
    with shielded():
        return subprocess.Popen(
            [sys.executable, "-I", "-c", boot, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:  # it died before prctl: nobody is left to work for
        os._exit(1)
