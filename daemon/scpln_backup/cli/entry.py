"""The console script's first steps, before anything heavy is imported."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    if "serve" in sys.argv:
        # Until the daemon's own handlers stand, SIGUSR1 and SIGHUP would end it. Blocked, they wait for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP})
    if "backup" in sys.argv:
        from scpln_backup.support import niceness  # noqa: PLC0415 - a run in the foreground is one from its begin

        niceness.yield_at_once()
    from scpln_backup.cli.main import run  # noqa: PLC0415 - only now, for the reason above

    sys.exit(run(sys.argv[1:]))
