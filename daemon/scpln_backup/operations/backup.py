"""One run: from the live database to a proven artifact, recorded, swept and announced (design, section 5)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import ArtifactExistsError, BackupError, CatalogError, NoSpaceError, StoppedError, from_os
from scpln_backup.events import ArtifactPublished, RunFinished, RunStarted, StageEntered
from scpln_backup.model import Manifest, Outcome, RunRecord, Stage, State
from scpln_backup.operations import reuse, sweep, verify
from scpln_backup.operations.problems import noted, settled
from scpln_backup.operations.reuse import PROGRAM
from scpln_backup.operations.workbench import work
from scpln_backup.rules.naming import artifact_name
from scpln_backup.rules.suspect import suspicion
from scpln_backup.stages import source, worker
from scpln_backup.stages.snapshot import Limits
from scpln_backup.support.text import human_bytes, one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from scpln_backup.model import Artifact, Trigger
    from scpln_backup.operations.house import House
    from scpln_backup.stages.reuse import Older
    from scpln_backup.stages.source import SourceFacts

_MIB = 1024 * 1024
_ROOM_TO_SPARE = 16 * _MIB
_FIRST_ARTIFACT_SHARE = 2  # without an earlier artifact, room for half of the database is asked for


def backup(house: House, trigger: Trigger, cancel: threading.Event) -> RunRecord:
    """Make one run and return its record, whatever its outcome; `cancel` gives it up at the next safe point.

    Raises LockHeldError when somebody else changes the store, and BackupError when nothing could be begun.
    """
    house.require_owner()
    with house.run_lock(f"a backup ({trigger})") as lock:
        run = _Run(house, trigger)
        run.begin()
        try:
            run.copy(lock.fd, cancel)
            run.publish()
        except StoppedError as error:
            run.fail(error, interrupted=True)
        except BackupError as error:
            run.fail(error)
        except OSError as error:
            run.fail(from_os(error))
        else:
            run.tidy()
        return run.finish()


class _Run:
    """A run under way. It is failed until its last step has succeeded."""

    def __init__(self, house: House, trigger: Trigger) -> None:
        self._house = house
        self._began = time.monotonic()
        self._record = RunRecord(trigger=trigger, started_at=house.now())
        self._artifacts: list[Artifact] = []
        self._source: SourceFacts | None = None
        self._done: worker.Done | None = None
        self._checked_at: datetime | None = None
        self._seconds: dict[Stage, float] = {}
        self._problems: list[str] = []
        self._staged = house.store.staging / "artifact"

    def begin(self) -> None:
        """Note the run in the catalog. A catalog that cannot be written costs the run its success, not the copy."""
        record = self._record
        with noted(self._problems):
            run_id = self._house.catalog.begin_run(record.trigger, record.started_at)
            self._record = msgspec.structs.replace(record, id=run_id)
        self._house.announce(RunStarted(trigger=record.trigger, started_at=record.started_at))

    def copy(self, lock_fd: int, cancel: threading.Event) -> None:
        """Preflight, then the worker: a proven artifact in the staging folder."""
        house = self._house
        with self._stage(Stage.PREFLIGHT):
            self._source = facts = source.inspect(house.source)
            self._require_disk()
            house.store.prepare()
            house.store.clean()
            self._artifacts = house.store.scan()
            self._make_room(room_needed(facts, self._artifacts))
        older = reuse.reusable(self._artifacts, house.config.backup, house.now())
        with reuse.held(house.store, older, self._problems) as known:
            self._done = done = work(self._request(known), lock_fd=lock_fd, cancel=cancel, announce=house.announce)
        self._seconds.update(done.stage_seconds)
        if older is not None and done.reused:
            self._record = msgspec.structs.replace(self._record, reused_from=older.name)
            self._checked_at = older.manifest.checked_at if older.manifest is not None else None
        elif older is not None and done.older_damage is not None:
            self._condemn(older.name, done.older_damage)
        elif done.older_unread is not None:
            self._problems.append(done.older_unread)

    def _request(self, older: Older | None) -> worker.Request:
        config, staging = self._house.config.backup, self._house.store.staging
        return worker.Request(
            source=str(self._house.source),
            copy=str(staging / "copy.db"),
            artifact=str(self._staged),
            compression=config.compression,
            preset=config.preset,
            limits=Limits(
                config.source_wait_seconds,
                config.writer_block_limit_seconds,
                self._house.workers,
                config.bandwidth_limit_mib_per_second * _MIB,
            ),
            older=older,
        )

    def _condemn(self, name: str, damage: str) -> None:
        """Say of an older artifact that it is not what it was: nothing is to be restored from it, nor compared with."""
        with noted(self._problems):
            verify.judge(self._house, self._house.store.get(name), verify.Reading(None, None, damage))
            self._artifacts = self._house.store.scan()

    def _make_room(self, needed: int) -> None:
        """Where room is lacking, what is past its time goes now instead of after the run."""
        house = self._house
        try:
            require_room(house.root, needed)
        except NoSpaceError:
            with noted(self._problems):
                sweep.sweep(house, self._artifacts, house.now(), house.catalog.last_finished(self._record.id))
                self._artifacts = house.store.scan()
            require_room(house.root, needed)

    def _require_disk(self) -> None:
        """Refuse an empty root where there were artifacts: what is written under a mount point is lost behind it."""
        known = 0
        with noted(self._problems):
            known = self._house.catalog.artifact_summary().count
        if known and not self._house.store.scan():
            msg = (
                f"{self._house.root}: none of the {known} artifacts that were here is left: is its disk mounted? "
                f"If they were removed on purpose, say so with: scpln-backup sweep"
            )
            raise BackupError(msg)

    def publish(self) -> None:
        """Give the artifact its name, whole or not at all."""
        with self._stage(Stage.PUBLISH):
            taken = {artifact.name for artifact in self._artifacts}
            while True:
                manifest = self._manifest(taken)
                try:
                    self._house.store.publish(self._staged, manifest)
                except ArtifactExistsError:
                    # The old procedure, not yet switched off, has put its file there in the meantime.
                    taken.add(manifest.name)
                else:
                    break
        self._record = msgspec.structs.replace(self._record, artifact=manifest.name)
        self._house.announce(ArtifactPublished(manifest=manifest))

    def _manifest(self, taken: set[str]) -> Manifest:
        assert self._done is not None  # noqa: S101 - publish comes after copy
        done, house, record = self._done, self._house, self._record
        baseline = [artifact.manifest for artifact in self._artifacts if artifact.manifest is not None]
        doubt = suspicion(done.fingerprint, baseline, house.config.backup.suspect_shrink_percent)
        local = record.started_at.astimezone(house.zone)
        self._record = msgspec.structs.replace(
            record,
            outcome=Outcome.SUSPECT if doubt else Outcome.SUCCESS,
            error=doubt,
            raw_bytes=done.fingerprint.size_bytes,
            artifact_bytes=done.artifact_bytes,
            sha256=done.artifact_sha256,
            raw_sha256=done.fingerprint.sha256,
            writer_blocked_seconds=done.snapshot.writer_blocked_seconds,
            wal_growth_bytes=done.snapshot.wal_growth_bytes or None,
            stage_seconds=dict(self._seconds),
        )
        name = artifact_name(house.config.database.name, local, house.config.backup.compression, taken)
        now = house.now()
        return Manifest(
            name=name,
            database=house.config.database.name,
            environment=house.config.environment,
            taken_at=done.snapshot.taken_at.astimezone(house.zone),
            compression=house.config.backup.compression,
            bytes=done.artifact_bytes,
            sha256=done.artifact_sha256,
            fingerprint=done.fingerprint,
            state=State.SUSPECT if doubt else State.VERIFIED,
            state_reason=doubt,
            verified_at=None if doubt else now,
            checked_at=now if self._record.reused_from is None else self._checked_at,
            run=msgspec.structs.replace(self._record, artifact=name, finished_at=now, duration_seconds=self._elapsed()),
            preset=house.config.backup.preset,
            source=self._source.file if self._source is not None else None,
            host=os.uname().nodename,
            program=PROGRAM,
            sqlite=sqlite3.sqlite_version,
        )

    def tidy(self) -> None:
        """What follows a published artifact. A failure here leaves the artifact good and the run degraded."""
        house = self._house
        with noted(self._problems):
            house.store.clean()
            self._artifacts = house.store.scan()
            house.catalog.sync_artifacts(self._artifacts, house.now())
        if self._record.outcome is Outcome.SUCCESS:
            with noted(self._problems), self._stage(Stage.SWEEP):
                # No earlier run is looked at: this one is good, which ends a freeze for another's sake.
                swept = sweep.sweep(house, self._artifacts, house.now(), last=None)
                if swept.frozen is not None:
                    self._problems.append(f"nothing was swept: {swept.frozen}")

    def fail(self, error: BackupError, *, interrupted: bool = False) -> None:
        self._record = msgspec.structs.replace(
            self._record,
            outcome=Outcome.FAILED,
            error=one_line(error),
            artifact=None,
            reused_from=None,
            interrupted=interrupted,
        )
        with noted(self._problems):
            self._house.store.clean()

    def finish(self) -> RunRecord:
        """Settle the outcome, write it down, tell everybody."""
        record = self._settled()
        try:
            self._house.catalog.finish_run(record)
        except CatalogError as error:
            self._problems.append(one_line(error))
            record = self._settled()
        self._house.announce(RunFinished(record=record))
        return record

    def _settled(self) -> RunRecord:
        record = self._record
        outcome, error = settled(record.outcome, record.error, self._problems)
        return msgspec.structs.replace(
            record,
            outcome=outcome,
            error=error,
            finished_at=self._house.now(),
            duration_seconds=self._elapsed(),
            stage_seconds=dict(self._seconds),
        )

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._began, 3)

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        self._house.announce(StageEntered(stage=stage))
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] = round(time.monotonic() - began, 3)


def room_needed(facts: SourceFacts, artifacts: list[Artifact]) -> int:
    """Bytes that a run needs in the backup root: the copy, and an artifact somewhat larger than the last."""
    copy = facts.size_bytes + facts.wal_bytes
    last = next((artifact for artifact in artifacts if artifact.raw_bytes), None)
    if last is None or not last.raw_bytes:
        return copy + copy // _FIRST_ARTIFACT_SHARE + _ROOM_TO_SPARE
    expected = last.bytes * copy // last.raw_bytes
    return copy + expected + expected // 4 + _ROOM_TO_SPARE


def require_room(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        msg = (
            f"{root}: {human_bytes(free)} free, and the copy and its artifact need {human_bytes(needed)}; make room, "
            f"or lower [retention] days and run: scpln-backup sweep --despite-failure"
        )
        raise NoSpaceError(msg)
