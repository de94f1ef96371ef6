"""What is measured with a database of one size: nights, restores, and what a writer feels."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from contenders import BALANCED, SEED, Contender, Job
from measure import Sample, measure, measure_beside_a_writer, writer_alone

from scpln_backup.model import Preset
from support.writer import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from floors import Floors

FIRST, CHANGED, UNCHANGED, RESTORE = "first", "changed", "unchanged", "restore"
_LIMIT = 3600
_ALONE_SECONDS = 2  # before each contender: a disk has better and worse minutes
# A number of the same length in one row of a hundred, anywhere in the tables.
_CHANGES = (
    "UPDATE runs SET updated_at = updated_at + 60000 WHERE rowid % 100 = {turn}",
    "UPDATE plan_series SET updated_at = updated_at + 60000 WHERE rowid % 100 = {turn}",
)

Samples = dict[Contender, list[Sample]]


@dataclass
class Felt:
    """A writer beside each contender: what became of the backups, and what the writer lived through in all of them."""

    alone: Report
    samples: Samples = field(default_factory=dict)
    reports: dict[Contender, Report] = field(default_factory=dict)


@dataclass
class Size:
    """`nights` by what was done; those of the growth measurements have only the first night and the restore.

    `replaced`: the seconds that each restore in the live database's place took, and those with the application stopped.
    """

    mib: int
    nights: dict[str, Samples]
    replaced: list[tuple[float, float]] = field(default_factory=list)
    floors: Floors | None = None
    beside: dict[str, Felt] = field(default_factory=dict)


def nights(
    database: Path, folder: Path, contenders: Sequence[Contender], repeat: int, *, more: bool
) -> dict[str, Samples]:
    """Backups and restores of `database` with nobody writing; with `more` a second and a third night too, once."""
    kinds = (FIRST, CHANGED, UNCHANGED, RESTORE) if more else (FIRST, RESTORE)
    found: dict[str, Samples] = {kind: {contender: [] for contender in contenders} for kind in kinds}
    for turn in range(repeat):
        taking = contenders if turn == 0 else quick(contenders)
        jobs = {contender: _job(contender, database, folder / f"{n}") for n, contender in enumerate(taking)}
        todo = kinds if turn == 0 else (FIRST, RESTORE)
        for night, kind in enumerate((kind for kind in todo if kind != RESTORE), start=1):
            if kind == CHANGED:
                for path in {job.database for job in jobs.values()}:
                    _change(path, turn)
            for contender in _in_turn(taking, turn + night):
                jobs[contender] = jobs[contender]._replace(night=night)
                sample = measure(contender.backup, jobs[contender], _LIMIT)
                found[kind][contender].append(sample)
                tell(f"  {kind} night, {contender.name}: {sample.problem or f'{sample.wall:.2f} s'}")
        for contender in _in_turn(taking, turn):
            found[RESTORE][contender].append(_restored(contender, jobs[contender]))
            shutil.rmtree(jobs[contender].folder)
    return found


def quick(contenders: Sequence[Contender]) -> list[Contender]:
    """Without those that take a minute for what takes the others seconds: they are measured once."""
    return [contender for contender in contenders if contender.preset is not Preset.SMALL]


def warm_up(database: Path, folder: Path) -> None:
    """The first touch of memory costs, and is nobody's fault."""
    for contender in (SEED, BALANCED):
        if not contender.missing:
            job = _job(contender, database, folder / "warm")
            measure(contender.backup, job, _LIMIT)
            measure(contender.restore, job, _LIMIT)
            shutil.rmtree(job.folder)


def beside(database: Path, folder: Path, contenders: Sequence[Contender], repeat: int, limit: float) -> Felt:
    """Backups while somebody writes. Those that take a minute would teach nothing more."""
    felt = Felt(Report([], [], 0, 0))
    for turn in range(repeat):
        for contender in _in_turn(quick(contenders), turn):
            job = _job(contender, database, folder / "beside")
            _add(felt.alone, writer_alone(job, _ALONE_SECONDS))
            sample, report = measure_beside_a_writer(contender.backup, job, limit)
            shutil.rmtree(job.folder)
            tell(f"  beside a writer, {contender.name}: {sample.problem or f'{sample.wall:.2f} s'}")
            felt.samples.setdefault(contender, []).append(sample)
            _add(felt.reports.setdefault(contender, Report([], [], 0, 0)), report)
    return felt


def replaced(database: Path, folder: Path) -> tuple[float, float]:
    """Restore the live database, and put what was set aside away. What it has taken, and for how long nothing ran."""
    job = _job(BALANCED, database, folder / "replaced")
    for script in (BALANCED.backup, BALANCED.replace):
        sample = measure(script, job, _LIMIT)
        if sample.problem:
            raise RuntimeError(f"{BALANCED.name}: {sample.problem}")
    document = json.loads(sample.output)
    shutil.rmtree(document["set_aside"])
    shutil.rmtree(job.folder)
    _, *steps = document["steps"]  # the first is done while the application runs
    began, last = (datetime.fromisoformat(step["at"]) for step in (steps[0], steps[-1]))
    return sample.wall, (last - began).total_seconds() + steps[-1]["seconds"]


def held(sample: Sample) -> float:
    """For how long a backup of ours held up the writers, as it says itself."""
    return float(json.loads(sample.output)["writer_blocked_seconds"])


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _add(report: Report, more: Report) -> None:
    report.seconds.extend(more.seconds)
    report.errors.extend(more.errors)


def _in_turn(contenders: Sequence[Contender], turn: int) -> Iterator[Contender]:
    return iter(contenders[:: -1 if turn % 2 else 1])


def _job(contender: Contender, database: Path, folder: Path) -> Job:
    """Everything up to the first backup, which nobody times."""
    (folder / "work").mkdir(parents=True)
    job = Job(database, folder)
    job.store.mkdir()
    if contender.own_source:
        own = folder / "source" / database.name
        own.parent.mkdir()
        # Not a mere copy of the file: a -wal may be beside it.
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(own)) as target:
            mode = source.execute("PRAGMA journal_mode").fetchone()[0]
            source.backup(target)
            target.execute(f"PRAGMA journal_mode = {mode}")
        job = job._replace(database=own)
    contender.configure(job)
    prepared = measure(contender.prepare, job, _LIMIT)
    if prepared.problem:
        raise RuntimeError(f"{contender.name}: {prepared.problem}")
    return job


def _change(database: Path, turn: int) -> None:
    with closing(sqlite3.connect(database)) as db:
        for change in _CHANGES:
            db.execute(change.format(turn=turn % 100))
        db.commit()


def _restored(contender: Contender, job: Job) -> Sample:
    sample = measure(contender.restore, job, _LIMIT)
    if sample.problem is None and _rows(job.out) != _rows(job.database):
        sample = sample._replace(problem="the restored database has other rows")
    tell(f"  restore, {contender.name}: {sample.problem or f'{sample.wall:.2f} s'}")
    return sample


def _rows(database: Path) -> list[tuple[int, int]]:
    """What tells one night's database from another's."""
    with closing(sqlite3.connect(database)) as db:
        counted = "SELECT count(*), sum(updated_at) FROM"
        return [db.execute(f"{counted} {table}").fetchone() for table in ("runs", "plan_series")]
