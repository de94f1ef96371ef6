"""Decisions about slots whose run came late or to nothing. Pure: facts in, answer out."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from scpln_backup.model import RunRecord

# A slot is noticed at once by its own timer and within a heartbeat (30 s) by the other; a host that wakes up,
# or a daemon that is restarted just then, needs a little more. Until then the run counts as on time.
ON_TIME = timedelta(seconds=120)

# The slot's run and two repeats. A backup that takes the machine down must not do so for ever.
MOST_ATTEMPTS = 3

_OF_A_SLOT = frozenset({Trigger.SCHEDULE, Trigger.CATCH_UP})
_COPY_EXISTS = frozenset({Outcome.SUCCESS, Outcome.DEGRADED, Outcome.SUSPECT})


def trigger_for(slot: datetime, *, now: datetime, catch_up: bool) -> Trigger | None:
    """The trigger of the run for a slot that is due; None when it is late and lateness is not made up for."""
    # In UTC: within one zone Python subtracts wall clocks, and the night the clocks change is a night too.
    if now.astimezone(UTC) - slot.astimezone(UTC) <= ON_TIME:
        return Trigger.SCHEDULE
    return Trigger.CATCH_UP if catch_up else None


def unfinished(runs_since_slot: Sequence[RunRecord], *, handed_out: bool) -> bool:
    """Whether the slot that was served last still has no run to its end.

    Either its newest run was interrupted (killed, stopped, power loss), or it was `handed_out` to the runner
    and none ever began; and no run since then, whoever asked for it, left a copy. A run that failed by itself
    is an end. `runs_since_slot`: newest first, none of them under way.
    """
    if any(run.outcome in _COPY_EXISTS for run in runs_since_slot):
        return False
    attempts = [run for run in runs_since_slot if run.trigger in _OF_A_SLOT]
    return attempts[0].interrupted if attempts else handed_out


def may_repeat(runs_since_slot: Sequence[RunRecord]) -> bool:
    """Whether an unfinished slot has attempts left."""
    return sum(run.trigger in _OF_A_SLOT for run in runs_since_slot) < MOST_ATTEMPTS
