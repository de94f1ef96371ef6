"""Before anything is stopped: which artifact, whether it may be restored, and what it will take."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, RestoreRefusedError
from scpln_backup.model import Artifact, State
from scpln_backup.operations.restore import swap
from scpln_backup.stages import source
from scpln_backup.stages.openers import Opener, file_set, openers
from scpln_backup.support import systemctl
from scpln_backup.support.people import current_user
from scpln_backup.support.text import human_bytes

if TYPE_CHECKING:
    from datetime import datetime

    from scpln_backup.operations.house import House

_ROOM_TO_SPARE = 16 * 1024 * 1024
_USUAL_RATIO = 9


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator said explicitly."""

    suspect: bool = False
    deleted: bool = False
    unverified: bool = False
    schema: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore will do. `expected_seconds` is measured by drills; None when none has been made.

    `database_bytes` is None for an artifact of the old procedure that was never verified.
    """

    artifact: Artifact
    target: str
    target_exists: bool
    set_aside: str
    units: tuple[str, ...]
    database_bytes: int | None
    free_bytes: int
    needed_bytes: int
    expected_seconds: float | None
    open_by: tuple[Opener, ...]
    user: str
    warnings: tuple[str, ...] = ()


def choose(house: House, name: str | None, at: datetime | None) -> Artifact:
    """The artifact of this name, the newest verified one not after `at`, or the newest verified one."""
    if name is not None:
        return house.store.get(name)
    verified = [artifact for artifact in house.store.scan() if artifact.state is State.VERIFIED]
    if at is not None:
        verified = [artifact for artifact in verified if artifact.taken_at.timestamp() <= at.timestamp()]
    if not verified:
        when = f" from {at.astimezone(house.zone):%Y-%m-%d %H:%M} or before" if at is not None else ""
        msg = (
            f"there is no verified artifact{when}; look at: scpln-backup list, and verify one: scpln-backup verify NAME"
        )
        raise RestoreRefusedError(msg)
    return verified[0]


def make(
    house: House, artifact: Artifact, target: Path, now: datetime, allowed: Allowed, *, looking: bool = False
) -> Plan:
    """The plan for putting `artifact` in the place of `target`; RestoreRefusedError when that must not be.

    Who is only `looking` is warned of units that could not be stopped or started, and sees the rest of the plan.
    """
    require_sound(artifact, allowed)
    target = Path(os.path.realpath(target))
    needed, free = room(artifact, target)
    if free < needed:
        msg = (
            f"{target.parent}: {human_bytes(free)} free, and the restored database needs {human_bytes(needed)} beside "
            f"the old one; make room there, for nothing of the old database is deleted"
        )
        raise RestoreRefusedError(msg)
    _require_attributes(target)
    units = tuple(systemctl.full_name(unit) for unit in house.config.service.units)
    warnings = _schema_warnings(house, artifact, target, allowed)
    try:
        _require_units(units)
    except BackupError as error:
        if not looking:
            raise
        warnings.append(f"this would be refused: {error}")
    open_by = tuple(openers(target))
    strangers = [opener for opener in open_by if opener.unit not in units]
    if strangers:
        named = ", ".join(map(str, strangers))
        msg = f"{target}: open in {named}, which no unit of [service] units would stop; end it first"
        raise RestoreRefusedError(msg)
    if open_by and not target.exists() and not allowed.deleted:
        msg = (
            f"{target}: deleted, but {', '.join(map(str, open_by))} still has it open: that is the only complete copy, "
            f"and stopping the unit destroys it; save it first from /proc/{open_by[0].pid}/fd (see the runbook), or "
            f"say --allow-deleted"
        )
        raise RestoreRefusedError(msg)
    return Plan(
        artifact=artifact,
        target=str(target),
        target_exists=target.exists(),
        set_aside=str(free_name(target.with_name(f"{target.name}.bak-{now.astimezone(house.zone):%Y%m%d_%H%M}"))),
        units=units,
        database_bytes=artifact.raw_bytes,
        free_bytes=free,
        needed_bytes=needed,
        expected_seconds=expected_seconds(house, artifact),
        open_by=open_by,
        user=current_user(),
        warnings=tuple(warnings),
    )


def require_sound(artifact: Artifact, allowed: Allowed) -> None:
    """Refuse an artifact that nobody vouches for, unless told so explicitly."""
    if artifact.state is State.CORRUPT:
        reason = artifact.problem or (artifact.manifest.state_reason if artifact.manifest is not None else None)
        msg = (
            f"{artifact.name}: corrupt ({reason or 'its last verification failed'}); choose another: scpln-backup list"
        )
        raise RestoreRefusedError(msg)
    if artifact.state is State.SUSPECT and not allowed.suspect:
        reason = artifact.manifest.state_reason if artifact.manifest is not None else None
        msg = f"{artifact.name}: suspect ({reason}); choose another, or say --allow-suspect"
        raise RestoreRefusedError(msg)
    if artifact.state is State.UNVERIFIED and not allowed.unverified:
        msg = f"{artifact.name}: never verified; run: scpln-backup verify {artifact.name}, or say --allow-unverified"
        raise RestoreRefusedError(msg)


def _require_attributes(target: Path) -> None:
    """Refuse what would change the owner of the application's database."""
    if not target.exists() or os.geteuid() in (0, target.stat().st_uid):
        return
    msg = (
        f"{target}: belongs to another user, and the restored one would belong to {current_user()}; run this as root: "
        f"sudo scpln-backup restore …"
    )
    raise RestoreRefusedError(msg)


def _require_units(units: tuple[str, ...]) -> None:
    """Refuse units that could be stopped and not be started again; UnitError where systemd says so itself."""
    for unit in units:
        if not systemctl.exists(unit):
            raise RestoreRefusedError(f"{unit}: systemd knows no such unit; correct [service] units in the config")


def room(artifact: Artifact, target: Path) -> tuple[int, int]:
    """Bytes needed beside the target, and bytes free there. A -wal or -journal costs a copy of the old database."""
    if not target.parent.is_dir():
        msg = f"{target.parent}: no such folder; make it, with the application as its owner, then restore again"
        raise RestoreRefusedError(msg)
    # The size of one that was never verified is not known before it is decompressed; the application's own data
    # shrinks to a ninth, and a full disk ends the first phase without harm.
    raw = artifact.raw_bytes if artifact.raw_bytes is not None else artifact.bytes * _USUAL_RATIO
    old_set = [path.stat().st_size for path in file_set(target) if path.exists()]
    fold = sum(old_set) if len(old_set) > 1 else 0
    return raw + fold + _ROOM_TO_SPARE, shutil.disk_usage(target.parent).free


def expected_seconds(house: House, artifact: Artifact) -> float | None:
    """How long the artifact takes to become a checked database, from the last good drill, by size."""
    drill = house.catalog.last_good_drill()
    if drill is None or drill.restore_seconds is None or not artifact.raw_bytes:
        return house.catalog.measured_restore_seconds()
    rehearsed = next((a for a in house.store.scan() if a.name == drill.artifact), None)
    if rehearsed is None or not rehearsed.raw_bytes:
        return drill.restore_seconds
    return round(drill.restore_seconds * artifact.raw_bytes / rehearsed.raw_bytes, 3)


def free_name(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that is not there, nor what an undone restore kept under that name."""
    candidate, number = path, 1
    while any(os.path.lexists(f"{candidate}{ending}") for ending in ("", *swap.KEPT)):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _schema_warnings(house: House, artifact: Artifact, target: Path, allowed: Allowed) -> list[str]:
    """Compare the artifact's schema with the running application's, as far as the databases tell.

    Alembic's revisions have no order in themselves.  But if a backup with the live database's revision was taken
    before the first one with the artifact's, the application has been taken back since, and the artifact is newer.
    """
    fingerprint = artifact.manifest.fingerprint if artifact.manifest is not None else None
    theirs = fingerprint.alembic_version if fingerprint is not None else None
    ours = _alembic_version(target)
    if theirs is None or ours is None or theirs == ours:
        return []
    history = sorted(
        (a.taken_at.timestamp(), a.manifest.fingerprint.alembic_version)
        for a in house.store.scan()
        if a.manifest is not None and a.manifest.fingerprint is not None and a.manifest.fingerprint.alembic_version
    )
    first_seen: dict[str, float] = {}
    for at, version in history:
        first_seen.setdefault(version, at)
    if ours in first_seen and first_seen[ours] < first_seen.get(theirs, 0.0) and not allowed.schema:
        msg = (
            f"{artifact.name}: its schema ({theirs}) is newer than the running application's ({ours}), which may not "
            f"understand it; choose an older artifact, or install that application first, or say --allow-schema"
        )
        raise RestoreRefusedError(msg)
    return [f"the artifact's schema is {theirs}, the live database's {ours}: the application may have to migrate it"]


def _alembic_version(target: Path) -> str | None:
    """What the live database says; None when it is missing or too damaged to say."""
    if not target.exists():
        return None
    try:
        with closing(sqlite3.connect(source.uri(target, "mode=ro&immutable=1"), uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])
