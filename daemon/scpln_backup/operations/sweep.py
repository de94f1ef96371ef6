"""Retention: decide by the rules, delete what they let go, or say why nothing may be deleted now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import ArtifactError, SweepRefusedError
from scpln_backup.events import ArtifactDeleted, RetentionFrozen
from scpln_backup.model import Outcome, State
from scpln_backup.rules.clock import ClockReading, jump
from scpln_backup.rules.retention import Action, Candidate, Policy, Verdict, decide
from scpln_backup.support import clock
from scpln_backup.support.text import human_duration, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from scpln_backup.model import Artifact, RunRecord
    from scpln_backup.operations.house import House


class Sweep(msgspec.Struct, frozen=True):
    """What was decided, and deleted unless it was a dry run. `frozen` says why nothing may be deleted now."""

    verdicts: list[Verdict]
    deleted: list[str]
    frozen: str | None


def candidate(artifact: Artifact) -> Candidate:
    """What retention goes by."""
    return Candidate(
        name=artifact.name,
        taken_at=artifact.taken_at,
        modified_at=artifact.modified_at,
        state=artifact.state,
        pinned=artifact.pinned,
        problem=artifact.problem if artifact.manifest is None else None,
    )


def policy(house: House) -> Policy:
    retention = house.config.retention
    return Policy(**{name: getattr(retention, name) for name in Policy.__struct_fields__})


def plan(house: House, artifacts: Sequence[Artifact], now: datetime, last: RunRecord | None) -> Sweep:
    """Decide without deleting. `last` is the newest finished run."""
    frozen = frozen_because(house, last)
    candidates = [candidate(artifact) for artifact in artifacts]
    return Sweep(decide(candidates, policy(house), now=now, zone=house.zone, frozen=frozen), [], frozen)


def frozen_because(house: House, last: RunRecord | None) -> str | None:
    """Why retention must not delete anything now, None when it may (design, section 5)."""
    if last is not None and last.outcome in (Outcome.FAILED, Outcome.SUSPECT):
        how = "failed" if last.outcome is Outcome.FAILED else "is suspect"
        return f"the last run {how}; it goes on after the next good one"
    before = house.catalog.clock()
    jumped = None if before is None else jump(before, ClockReading(*clock.read_clock()))
    if jumped is not None:
        way = "forward" if jumped > 0 else "back"
        return (
            f"the clock jumped {way} by {human_duration(abs(jumped))}; check it with timedatectl, and if it is right "
            f"now: scpln-backup sweep --accept-clock"
        )
    return None


def sweep(house: House, artifacts: Sequence[Artifact], now: datetime, last: RunRecord | None) -> Sweep:
    """Delete what retention lets go. The caller holds the run lock.

    Raises SweepRefusedError rather than delete the last artifact, or the last verified one.
    """
    planned = plan(house, artifacts, now, last)
    if planned.frozen is not None:
        house.announce(RetentionFrozen(reason=planned.frozen))
        return planned
    accept_clock(house)
    doomed = [verdict for verdict in planned.verdicts if verdict.action is Action.DELETE]
    refuse_to_empty(artifacts, {verdict.name for verdict in doomed})
    spared = {verdict.name: reason for verdict in doomed if (reason := _delete(house, verdict, now)) is not None}
    verdicts = [
        Verdict(verdict.name, Action.KEEP, spared[verdict.name]) if verdict.name in spared else verdict
        for verdict in planned.verdicts
    ]
    return Sweep(verdicts, [verdict.name for verdict in doomed if verdict.name not in spared], None)


def refuse_to_empty(artifacts: Sequence[Artifact], doomed: set[str]) -> None:
    """Whatever the rules say, the last artifact and the last verified one are not retention's to take."""
    remaining = [artifact for artifact in artifacts if artifact.name not in doomed]
    verified = any(artifact.state is State.VERIFIED for artifact in artifacts)
    if doomed and not remaining:
        raise SweepRefusedError(f"all {len(doomed)} artifacts are past their time and none would remain; back up first")
    if verified and not any(artifact.state is State.VERIFIED for artifact in remaining):
        raise SweepRefusedError("no verified artifact would remain; back up first, or raise [retention] keep_verified")


def accept_clock(house: House) -> None:
    """Take the clock as it is now for right."""
    house.catalog.set_clock(ClockReading(*clock.read_clock()))


def _delete(house: House, verdict: Verdict, now: datetime) -> str | None:
    """Delete one artifact; return why it had to be spared, None when it is gone."""
    try:
        house.store.delete(verdict.name)
    except ArtifactError as error:  # somebody reads it, or has pinned it just now
        return one_line(error)
    house.catalog.note_deleted(verdict.name, verdict.reason, now)
    house.announce(ArtifactDeleted(name=verdict.name, reason=verdict.reason))
    return None
