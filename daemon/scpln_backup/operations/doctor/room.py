"""Room: for tonight's run, for those of the coming month, and for a restore."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError
from scpln_backup.model import Outcome, State
from scpln_backup.operations import sweep
from scpln_backup.operations.backup import room_needed
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good
from scpln_backup.operations.doctor.mounts import existing, mount_of
from scpln_backup.operations.restore import plan
from scpln_backup.rules import forecast
from scpln_backup.rules.forecast import Outlook, Room, Sample, Stored
from scpln_backup.rules.retention import Action
from scpln_backup.support.text import human_bytes, one_line

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.model import Artifact, RunRecord
    from scpln_backup.operations.doctor.patient import Patient

_DAYS = 30
_HISTORY = timedelta(days=90)
_FILES_AN_ARTIFACT = 3  # itself, its manifest, its checksum
_FILES_A_RUN = 10
_MAKE_ROOM = "make room on that disk, enlarge it, or lower [retention] days"


def tonight(patient: Patient) -> Verdict | None:
    """Room for the copy and its artifact, as a run asks for it: where it lacks, retention is applied first."""
    facts, artifacts = patient.source, patient.artifacts
    if facts is None or artifacts is None:
        return None
    house = patient.house
    needed = room_needed(facts, artifacts)
    free = shutil.disk_usage(existing(house.root)).free
    freed = _freed_by_a_sweep(patient, artifacts) if patient.catalog_problem is None else 0
    return judge_tonight(needed, free, freed)


def _freed_by_a_sweep(patient: Patient, artifacts: list[Artifact]) -> int:
    house, at = patient.house, patient.schedules["backup"].next_after(patient.now)
    verdicts = sweep.plan(house, artifacts, at, house.catalog.last_finished()).verdicts
    doomed = {verdict.name for verdict in verdicts if verdict.action is Action.DELETE}
    return sum(artifact.bytes for artifact in artifacts if artifact.name in doomed)


def judge_tonight(needed: int, free: int, freed: int) -> Verdict:
    """`freed` is what a sweep beforehand would give."""
    what = f"{human_bytes(free)} free, and a run needs {human_bytes(needed)}"
    if free >= needed:
        return good(what)
    if free + freed >= needed:
        return doubtful(f"{what}: only the sweep before it gives {human_bytes(freed)} more", _MAKE_ROOM)
    return bad(f"{what}: the next one would fail", _MAKE_ROOM)


def in_a_month(patient: Patient) -> Verdict | None:
    """The forecast of rules.forecast, from the catalog's runs."""
    outlook = _outlook(patient)
    return None if outlook is None else judge_month(outlook, patient.house.zone)


@cache
def _outlook(patient: Patient) -> Outlook | None:
    facts, artifacts, house = patient.source, patient.artifacts, patient.house
    if facts is None or artifacts is None or patient.catalog_problem is not None:
        return None
    root, database = (mount_of(path, patient.mounts) for path in (house.root, house.source))
    until = patient.now + timedelta(days=_DAYS)
    slots = takewhile(
        lambda slot: slot.timestamp() <= until.timestamp(), patient.schedules["backup"].after(patient.now)
    )
    return forecast.forecast(
        [sample for run in house.catalog.runs(-1, patient.now - _HISTORY) if (sample := _sample(run)) is not None],
        [Stored(sweep.candidate(artifact), artifact.bytes) for artifact in artifacts],
        list(slots),
        policy=sweep.policy(house),
        room=Room(
            source_bytes=facts.size_bytes,
            free_bytes=shutil.disk_usage(existing(house.root)).free,
            shared=root.device == database.device,
        ),
        needed=lambda size: room_needed(msgspec.structs.replace(facts, size_bytes=size), artifacts),
        now=patient.now,
        zone=house.zone,
    )


def _sample(run: RunRecord) -> Sample | None:
    if run.outcome not in {Outcome.SUCCESS, Outcome.DEGRADED} or run.raw_bytes is None or run.artifact_bytes is None:
        return None
    return Sample(run.started_at, run.raw_bytes, run.artifact_bytes)


def judge_month(outlook: Outlook, zone: ZoneInfo) -> Verdict:
    growing = f"growing by {human_bytes(round(outlook.growth_bytes))} a day"
    basis = (
        f"{growing} (median of {outlook.samples} runs in {outlook.days} days)"
        if outlook.days
        else "as large as today (a forecast of growth needs runs on two days)"
    )
    if outlook.short_at is not None:
        return doubtful(
            f"room runs out on {_day(outlook.short_at, zone)}, {basis}: in {_DAYS} days "
            f"{human_bytes(-outlook.spare_bytes)} are lacking",
            _MAKE_ROOM,
        )
    return good(f"the tightest run of {_DAYS} days leaves {human_bytes(outlook.spare_bytes)}, {basis}")


def _day(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d}"


def inodes(patient: Patient) -> Verdict | None:
    """File systems that count their files can be full of them."""
    root = existing(patient.house.root)
    status = os.statvfs(root)
    if status.f_files == 0:
        return None  # btrfs and its like make them as they need them
    outlook = _outlook(patient)
    more = max(0, outlook.most_artifacts - len(patient.artifacts or ())) if outlook is not None else 0
    return judge_inodes(status.f_favail, _FILES_A_RUN, more * _FILES_AN_ARTIFACT)


def judge_inodes(free: int, tonight_needs: int, month_needs: int) -> Verdict:
    """Numbers of files: free ones, those that the next run makes, and those that a month adds."""
    advice = "delete small files on that file system, or make one with more inodes; see: df -i"
    if free < tonight_needs:
        return bad(f"{free} more files fit on the file system, and a run makes up to {tonight_needs}", advice)
    if free < tonight_needs + month_needs:
        return doubtful(f"{free} more files fit on the file system, and {month_needs} come within {_DAYS} days", advice)
    return good(f"{free:,} more files fit on the file system")


def for_a_restore(patient: Patient) -> Verdict | None:
    """Room beside the database for the restored one: the old one is set aside, not deleted."""
    newest = next((one for one in patient.artifacts or () if one.state is State.VERIFIED), None)
    if newest is None:
        return None
    try:
        needed, free = plan.room(newest, patient.house.source)
    except BackupError as error:
        what, _, advice = one_line(error).partition("; ")
        return bad(what, advice)
    folder = patient.house.source.parent
    what = f"{folder}: {human_bytes(free)} free, and a restore needs {human_bytes(needed)}"
    if free < needed:
        return bad(f"{what} beside the old database", "make room there: nothing of the old database is deleted")
    return good(what)
