"""The rehearsal of a restore: the newest artifact into a scratch folder, every check, the application's smoke test."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import ArtifactError, BackupError, CommandError, NoSpaceError, StoppedError, from_os
from scpln_backup.events import DrillFinished
from scpln_backup.model import DrillRecord, Outcome, State
from scpln_backup.operations import configured, verify
from scpln_backup.operations.configured import Configured
from scpln_backup.operations.problems import noted, settled
from scpln_backup.support import trees
from scpln_backup.support.text import human_bytes, one_line

if TYPE_CHECKING:
    import threading

    from scpln_backup.model import Artifact, Trigger
    from scpln_backup.operations.house import House

_SCRATCH = "drill-"
_OUTPUTS_KEPT = 10
_ROOM_TO_SPARE = 16 * 1024 * 1024


def drill(house: House, trigger: Trigger, cancel: threading.Event) -> DrillRecord:
    """Rehearse a restore and return its record, whatever its outcome; `cancel` gives it up, with the smoke test.

    It holds the run lock to its end: a run that is due meanwhile waits, as another run's would.
    Raises LockHeldError when somebody else changes the store, and BackupError when nothing could be begun.
    """
    house.require_owner()
    with house.run_lock(f"a drill ({trigger})") as lock:
        rehearsal = _Drill(house, trigger)
        rehearsal.begin()
        try:
            rehearsal.rehearse(lock.fd, cancel)
        except BackupError as error:
            rehearsal.fail(error)
        except OSError as error:
            rehearsal.fail(from_os(error))
        finally:
            rehearsal.clear()
        return rehearsal.finish()


class _Drill:
    """A drill under way. It has failed until its last step has succeeded."""

    def __init__(self, house: House, trigger: Trigger) -> None:
        self._house = house
        self._record = DrillRecord(trigger=trigger, started_at=house.now())
        self._problems: list[str] = []

    def begin(self) -> None:
        """Note the drill in the catalog. A catalog that cannot be written costs its success, not the drill."""
        with noted(self._problems):
            drill_id = self._house.catalog.begin_drill(self._record.trigger, self._record.started_at)
            self._note(id=drill_id)

    def rehearse(self, lock_fd: int, cancel: threading.Event) -> None:
        """Restore, check, test; raise what failed."""
        house = self._house
        artifact = self._newest()
        self._note(artifact=artifact.name)
        house.store.prepare()
        self._clear()
        house.store.clean()
        _require_room(house.root, artifact)
        scratch = house.store.staging / f"{_SCRATCH}{self._record.started_at:%Y%m%d_%H%M%S}"
        scratch.mkdir(0o700)
        copy = scratch / f"{house.config.database.name}.db"
        began = time.monotonic()
        reading = verify.read(house, artifact, copy, durable=True, cancel=cancel)
        seconds = round(time.monotonic() - began, 3)
        verdict = verify.judge(house, artifact, reading)
        if verdict.error is not None:
            raise ArtifactError(f"{artifact.name}: {verdict.error}; it counts as corrupt now, make a new backup")
        self._note(restore_seconds=seconds)
        if cancel.is_set():
            raise StoppedError("interrupted before the smoke test")
        if house.config.drill.command:
            self._smoke_test(copy, lock_fd, cancel)
        self._note(outcome=Outcome.SUCCESS)

    def _newest(self) -> Artifact:
        for artifact in self._house.store.scan():
            if artifact.state is State.VERIFIED:
                return artifact
        raise ArtifactError(f"no verified artifact is under {self._house.root}; make one: scpln-backup backup")

    def _smoke_test(self, copy: Path, lock_fd: int, cancel: threading.Event) -> None:
        house, settings = self._house, self._house.config.drill
        if (owner := configured.owner(house.source)) is not None:
            msg = (
                f"the smoke test has to run as {owner}, the database's owner, who cannot reach the copy in root's "
                f"{house.root}; give [backup] root and [state] directory to {owner}, and run the drill as {owner}"
            )
            raise CommandError(msg)
        smoke_test = Configured(
            what="the smoke test",
            argv=settings.command,
            directory=settings.directory,
            timeout_seconds=settings.timeout_seconds,
        )
        folder = Path(house.config.state.directory) / "drills"
        note = f"smoke test of {self._record.artifact}"
        output = configured.output_file(folder, "drill", self._record.started_at, smoke_test, note)
        self._note(output=str(output))
        with noted(self._problems):
            _forget_old(folder)
        # The keeper of the smoke test holds the run lock too: should this process be killed, nobody clears the
        # scratch, or begins a run, while the test is being ended.
        ran = configured.run(smoke_test, database=copy, user=None, output=output, cancel=cancel, hold=[lock_fd])
        self._note(smoke_exit_code=ran.exit_code)
        self._problems += ran.problems
        if ran.error is not None:
            raise CommandError(ran.error)

    def fail(self, error: BackupError) -> None:
        self._note(outcome=Outcome.FAILED, error=one_line(error))

    def clear(self) -> None:
        """Remove the scratch, whatever the smoke test made of it."""
        with noted(self._problems):
            self._clear()

    def _clear(self) -> None:
        staging = self._house.store.staging
        if staging.is_dir():
            for folder in staging.glob(f"{_SCRATCH}*"):
                trees.remove(folder)

    def finish(self) -> DrillRecord:
        """Settle the outcome, write it down, tell everybody."""
        record = self._settled()
        try:
            self._house.catalog.finish_drill(record)
        except BackupError as error:
            self._problems.append(one_line(error))
            record = self._settled()
        self._house.announce(DrillFinished(record=record))
        return record

    def _settled(self) -> DrillRecord:
        record = self._record
        outcome, error = settled(record.outcome, record.error, self._problems)
        return msgspec.structs.replace(record, outcome=outcome, error=error, finished_at=self._house.now())

    def _note(self, **facts: object) -> None:
        self._record = msgspec.structs.replace(self._record, **facts)


def _require_room(root: Path, artifact: Artifact) -> None:
    # What the smoke test writes into its copy is up to it; most write little.
    needed = (artifact.raw_bytes or 0) + _ROOM_TO_SPARE
    free = shutil.disk_usage(root).free
    if free < needed:
        msg = f"{root}: {human_bytes(free)} free, and the restored copy needs {human_bytes(needed)}; make room"
        raise NoSpaceError(msg)


def _forget_old(folder: Path) -> None:
    """Keep the newest outputs. By mtime: names in local time are out of order for an hour in autumn."""
    outputs = sorted(folder.glob("drill-*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in outputs[_OUTPUTS_KEPT:]:
        path.unlink()
