"""A restore, step by step: each step is announced in the journal before it is done and may be done again.

First phase, with the application up: decompress and check beside the target.  Second phase: stop the units, prove
that nobody has the database open, set the old set aside, swap, check in place, start, probe.  Whatever fails in the
second phase puts the old set back and starts what ran before.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, RestoreFailedError, StoppedError, from_os
from scpln_backup.events import RestoreFinished, RestoreStarted
from scpln_backup.model import RestoreOutcome, RestoreRecord, Step
from scpln_backup.operations import incident
from scpln_backup.operations.restore import journal as journals
from scpln_backup.operations.restore import swap
from scpln_backup.operations.restore.content import attributes_from_manifest, check_in_place, unpack_checked
from scpln_backup.operations.restore.journal import FileIdentity, Journal, Phase
from scpln_backup.operations.restore.plan import free_name
from scpln_backup.rules import loss as losses
from scpln_backup.stages import tables
from scpln_backup.stages.openers import openers
from scpln_backup.stages.probe import probe
from scpln_backup.support import files, systemctl
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from scpln_backup.model import Loss
    from scpln_backup.operations.house import House
    from scpln_backup.operations.restore.plan import Plan

log = logging.getLogger(__name__)

_RESUME = "mend that, then run: scpln-backup restore --resume"


def begin(house: House, plan: Plan) -> Journal:
    """Write down what is about to be done; the caller holds the run lock."""
    record = RestoreRecord(
        started_at=house.now(),
        artifact=plan.artifact.name,
        target=plan.target,
        user=plan.user,
        taken_at=plan.artifact.taken_at,
    )
    target = Path(plan.target)
    journal = Journal(
        phase=Phase.BEGUN,
        record=record,
        target=plan.target,
        staging=str(target.with_name(f".{target.name}.restore")),
        # Once more: since the plan was made another restore may have taken the name, and its files must stay.
        set_aside=str(free_name(Path(plan.set_aside))),
        units=plan.units,
    )
    try:
        journals.save(house, journal)
    except OSError as error:
        with suppress(OSError):
            journals.remove(house)
        raise from_os(error) from error
    house.announce(RestoreStarted(record=record))
    return journal


class Restoration:
    """One restore under way, from wherever its journal says it is."""

    def __init__(self, house: House, journal: Journal, cancel: threading.Event) -> None:
        self._house = house
        self._journal = journal
        self._cancel = cancel

    def go_on(self) -> RestoreRecord:
        """Do what is left; on any failure undo what was done. Returns the record, whatever the outcome."""
        try:
            while (work := self._work()) is not None:
                if self._cancel.is_set() and self._journal.phase < Phase.STARTED:
                    raise StoppedError("stopped by the operator")
                work()
        except (BackupError, OSError) as error:
            return self.undo(_says(error), RestoreOutcome.FAILED)
        return self._succeed()

    def resume(self) -> RestoreRecord:
        """Go on after a crash. What may have changed since is looked at again rather than believed."""
        phase = self._journal.phase
        if phase >= Phase.ROLLING_BACK:
            return self.undo(self._journal.reason or "it had failed before", self._journal.record.outcome)
        if Phase.STOPPING <= phase < Phase.STARTED:
            # Since the crash the units may have been started, on whichever database was there.
            try:
                self._stop_units()
                if swap.swapped(self._journal):
                    self._save(phase=Phase.SWAPPED)
                else:
                    swap.put_back(self._journal)
                    self._save(phase=Phase.STOPPING)
            except (BackupError, OSError) as error:
                return self.undo(_says(error), RestoreOutcome.FAILED)
        return self.go_on()

    def abort(self) -> RestoreRecord:
        """Undo what a crash broke off, as the operator asked."""
        return self.undo("aborted by the operator", RestoreOutcome.ABORTED)

    def undo(self, reason: str, outcome: RestoreOutcome) -> RestoreRecord:
        """Put the old set back, start what ran before, and say why.

        Raises RestoreFailedError when that fails too; the journal stays, for another `--abort`.
        """
        if outcome is RestoreOutcome.FAILED and swap.swapped(self._journal):
            outcome = RestoreOutcome.ROLLED_BACK
        self._record(outcome=outcome)
        try:
            if Phase.STOPPING <= self._journal.phase < Phase.UNDONE:
                reason = self._put_back(reason)
            if self._journal.phase >= Phase.ROLLING_BACK:
                # What was never stopped needs no start, which the caller may not even be allowed.
                self._start(tuple(unit for unit in self._journal.active if not systemctl.is_up(unit)))
        except (BackupError, OSError) as error:
            raise RestoreFailedError(f"{reason}; {self._left_undone(error)}") from error
        record = self._ended(reason)
        self._note(record)
        try:
            swap.clear(self._journal, forget_old=True)
            journals.remove(self._house)
        except OSError as error:
            msg = (
                f"{reason}; everything is as it was before, but what the restore has left cannot be removed: "
                f"{_says(error)}; mend that, then run: scpln-backup restore --abort"
            )
            raise RestoreFailedError(msg) from error
        self._house.announce(RestoreFinished(record=record))
        return record

    def _left_undone(self, error: BackupError | OSError) -> str:
        """What an undoing that failed has left, and what to do."""
        if self._journal.phase is Phase.UNDONE:
            return (
                f"the database is as it was before, but {_says(error)}; mend that, then run: "
                f"scpln-backup restore --abort"
            )
        return (
            f"and putting the old database back failed: {_says(error)}; mend that, then run: "
            f"scpln-backup restore --abort (the old files are in {self._journal.set_aside})"
        )

    def _put_back(self, reason: str) -> str:
        """Do so; return the reason, and what is kept besides the old database."""
        self._try_to_save(phase=Phase.ROLLING_BACK, reason=reason)
        if not swap.in_place(self._journal):
            with self._step("put the old database back"):
                self._stop_units()
                kept = swap.put_back(self._journal)
            if kept is not None:
                reason = f"{reason}; what was written since is kept in {kept}"
        self._try_to_save(phase=Phase.UNDONE, reason=reason)
        return reason

    def _try_to_save(self, **changes: object) -> None:
        """For the way back, which a full disk under the state must not stop: it can be found again without."""
        try:
            self._save(**changes)
        except OSError as error:
            log.warning("the journal of the restore cannot be written: %s", _says(error))

    # The steps, in the order of their phases

    def _work(self) -> Callable[[], None] | None:
        return {
            Phase.BEGUN: self._prepare,
            Phase.PREPARED: self._stop,
            Phase.STOPPING: self._stop,
            Phase.STOPPED: self._set_aside,
            Phase.SET_ASIDE: self._fold,
            Phase.FOLDED: self._swap,
            Phase.SWAPPED: self._check,
            Phase.CHECKED: self._start_all,
        }.get(self._journal.phase)

    def _prepare(self) -> None:
        house, target, new = self._house, Path(self._journal.target), swap.new_database(self._journal)
        artifact = house.store.get(self._journal.record.artifact)
        with self._step("decompress and check"):
            swap.clear(self._journal, forget_old=False)
            new.parent.mkdir(files.PRIVATE_FOLDER)
            restored = unpack_checked(house, artifact, new, self._cancel, with_tables=True)
            if target.exists():
                swap.take_over_attributes(new, target)
            else:
                attributes_from_manifest(new, artifact)
        self._record(artifact_sha256=restored.artifact_sha256)
        self._save(
            phase=Phase.PREPARED,
            new=FileIdentity.of(new),
            old=FileIdentity.of(target),
            restored=restored.proven.tables,
            xxh3=restored.proven.xxh3,
        )

    def _stop(self) -> None:
        self._save(phase=Phase.STOPPING, active=self._journal.active or self._active_units())
        self._stop_units()
        target = Path(self._journal.target)
        old, sidecars = FileIdentity.of(target), swap.sidecars(target)
        self._save(phase=Phase.STOPPED, old=old, sidecars=sidecars, folded=None, journalled=False, dropped=False)

    def _stop_units(self) -> None:
        limit = self._house.config.service.stop_timeout_seconds
        for unit in self._journal.units:
            with self._step(f"stop {unit}"):
                systemctl.stop(unit, limit)
        found = openers(Path(self._journal.target))
        if found:
            msg = f"{self._journal.target}: still open in {', '.join(map(str, found))}; end it, then try again"
            raise RestoreFailedError(msg)

    def _set_aside(self) -> None:
        target = Path(self._journal.target)
        with self._step(f"set the old database aside in {self._journal.set_aside}"):
            swap.set_aside(self._journal)
        self._save(phase=Phase.SET_ASIDE, journalled=target.exists() and swap.has_journal(target))

    def _fold(self) -> None:
        if self._journal.journalled:
            with self._step("work the old database's journal into it"):
                folded = swap.prepare_fold(self._journal)
                if folded is None:
                    self._save(dropped=True)
                else:
                    self._save(folded=folded)
                    swap.fold(self._journal)
        else:
            self._save(dropped=True)
        self._save(phase=Phase.FOLDED)

    def _swap(self) -> None:
        with self._step("put the restored database in its place"):
            swap.swap(self._journal)
            self._require_nobody_behind()
        self._save(phase=Phase.SWAPPED)

    def _require_nobody_behind(self) -> None:
        """Nobody may go on with the old file: it would write where nobody looks, and its journal beside the new one."""
        found = openers(swap.predecessor(self._journal))
        if found:
            swap.take_back(self._journal)
            # Whoever started a unit in the middle of this wants it to run.
            self._save(active=tuple(dict.fromkeys((*self._journal.active, *self._active_units()))))
            who = ", ".join(map(str, found))
            msg = f"{self._journal.target}: opened by {who} while it was being replaced; end it, then restore again"
            raise RestoreFailedError(msg)

    def _check(self) -> None:
        target = Path(self._journal.target)
        with self._step("check it in its place"):
            check_in_place(self._house, self._journal, target)
        self._save(phase=Phase.CHECKED)

    def _start_all(self) -> None:
        self._start(self._journal.units)
        service = self._house.config.service
        if self._journal.units or service.health_command:
            with self._step("health probe"):
                probe(service.health_url, service.health_command, timeout_seconds=service.health_timeout_seconds)
        self._save(phase=Phase.STARTED)

    def _start(self, units: tuple[str, ...]) -> None:
        limit = self._house.config.service.start_timeout_seconds
        for unit in reversed(units):
            with self._step(f"start {unit}"):
                systemctl.start(unit, limit)

    def _active_units(self) -> tuple[str, ...]:
        return tuple(unit for unit in self._journal.units if systemctl.is_active(unit))

    # What is written down

    def _succeed(self) -> RestoreRecord:
        """The end of a restore that worked, which nothing that fails from here on makes undone."""
        journal = self._journal
        aside = Path(journal.set_aside)
        with suppress(OSError):
            aside.rmdir()  # nothing was set aside where there was no database
        self._record(outcome=RestoreOutcome.SUCCESS, replaced=True, set_aside=str(aside) if aside.exists() else None)
        self._record(loss=self._loss(self._journal.record))
        record = self._ended(None)
        noted = self._note(record)
        try:
            if noted is not None:
                record = noted
                swap.clear(journal, forget_old=False)
                journals.remove(self._house)
        except OSError as error:
            log.warning("what the restore has left cannot be removed: %s; %s", _says(error), _RESUME)
        self._house.announce(RestoreFinished(record=record))
        return record

    def _ended(self, error: str | None) -> RestoreRecord:
        return msgspec.structs.replace(self._journal.record, finished_at=self._house.now(), error=error)

    def _note(self, record: RestoreRecord) -> RestoreRecord | None:
        """Into the catalog; None when that cannot be written, which must not undo a restore that worked."""
        try:
            record = msgspec.structs.replace(record, id=self._house.catalog.add_restore(record))
            if record.outcome is RestoreOutcome.SUCCESS:
                incident.open_incident(self._house, record, self._house.now())
        except BackupError as error:
            advice = _RESUME if record.outcome is RestoreOutcome.SUCCESS else "the list of restores lacks it"
            log.warning("the restore (%s) could not be noted: %s; %s", record.outcome, error, advice)
            return None
        return record

    def _loss(self, record: RestoreRecord) -> Loss:
        """What the restore cost; an old database that cannot be read is said to be, and never fails the restore."""
        journal = self._journal
        old = Path(journal.set_aside) / Path(journal.target).name
        before, problem = tables.read(old, Path(journal.staging))
        return losses.compare(before, journal.restored, record.taken_at or record.started_at, problem)

    def _save(self, **changes: object) -> None:
        self._journal = msgspec.structs.replace(self._journal, **changes)
        journals.save(self._house, self._journal)

    def _record(self, **changes: object) -> None:
        record = msgspec.structs.replace(self._journal.record, **changes)
        self._journal = msgspec.structs.replace(self._journal, record=record)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        log.info("restore: %s", name)
        at, began = self._house.now(), time.monotonic()
        detail = None
        try:
            yield
        except (BackupError, OSError) as error:
            detail = one_line(error)
            raise
        finally:
            step = Step(name=name, at=at, seconds=round(time.monotonic() - began, 3), detail=detail)
            self._record(steps=(*self._journal.record.steps, step))


def _says(error: BackupError | OSError) -> str:
    return one_line(error if isinstance(error, BackupError) else from_os(error))
