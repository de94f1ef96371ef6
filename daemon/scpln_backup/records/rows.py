"""Runs and artifacts as rows of the catalog, and runs told again from manifests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.model import Artifact, Manifest, Outcome, RunRecord, Stage, State, Trigger
from scpln_backup.records.times import from_micros, optional_datetime, optional_micros, to_micros

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

RUN_COLUMNS = tuple(name for name in RunRecord.__struct_fields__ if name != "id")
INSERT_RUN = (
    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) "  # noqa: S608 - the names of our own struct's fields
    f"VALUES ({', '.join(f':{name}' for name in RUN_COLUMNS)})"
)
INSERT_RUN_AS = (
    f"INSERT INTO runs (id, {', '.join(RUN_COLUMNS)}) "  # noqa: S608 - the names of our own struct's fields
    f"VALUES (:id, {', '.join(f':{name}' for name in RUN_COLUMNS)})"
)
UPDATE_RUN = (
    f"UPDATE runs SET {', '.join(f'{name} = :{name}' for name in RUN_COLUMNS)} "  # noqa: S608 - as above
    "WHERE id = :id AND started_at = :started_at"
)
SELECT_RUN = f"SELECT id, {', '.join(RUN_COLUMNS)} FROM runs"  # noqa: S608 - as above

_INTERRUPTED = "interrupted"
_STAGES = dict[Stage, float]
_OUTCOME_OF_STATE = {State.VERIFIED: Outcome.SUCCESS, State.SUSPECT: Outcome.SUSPECT}


def begun(trigger: Trigger, started_at: datetime) -> RunRecord:
    """A run under way, recorded as what it is if nobody comes back to finish it."""
    return RunRecord(trigger=trigger, started_at=started_at, error=_INTERRUPTED, interrupted=True)


def storable(text: str) -> str:
    """File names may hold bytes that are no UTF-8, and so may messages about them; SQLite's texts may not."""
    return text.encode(errors="backslashreplace").decode()


def run_to_row(record: RunRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["started_at"] = to_micros(record.started_at)
    row["finished_at"] = optional_micros(record.finished_at)
    row["error"] = None if record.error is None else storable(record.error)
    row["stage_seconds"] = msgspec.json.encode(record.stage_seconds).decode()
    return row


def run_from_row(row: tuple[Any, ...], zone: tzinfo) -> RunRecord:
    """`row` as SELECT_RUN gives it. ValueError and the like for values that no version of this program wrote."""
    fields = dict(zip(("id", *RUN_COLUMNS), row, strict=True))
    fields["trigger"] = Trigger(fields["trigger"])
    fields["outcome"] = Outcome(fields["outcome"])
    fields["started_at"] = from_micros(fields["started_at"], zone)
    fields["finished_at"] = optional_datetime(fields["finished_at"], zone)
    fields["stage_seconds"] = msgspec.json.decode(fields["stage_seconds"], type=_STAGES)
    fields["interrupted"] = bool(fields["interrupted"])
    return RunRecord(**fields)


def run_of_manifest(manifest: Manifest) -> RunRecord | None:
    """The run that made an artifact, as it ended; None when the manifest knows of none.

    A manifest is written before its run ends. That it was published is the proof that the run got that far; the
    outcome is what the artifact is now, and an artifact that turned out corrupt is nobody's success.
    """
    run = manifest.run
    if run is None:
        return None
    outcome = _OUTCOME_OF_STATE.get(manifest.state, Outcome.FAILED)
    if outcome is Outcome.SUCCESS and run.finished_at is not None and run.outcome is Outcome.DEGRADED:
        outcome = Outcome.DEGRADED
    ended = run.finished_at or run.started_at + timedelta(seconds=run.duration_seconds or 0)
    return msgspec.structs.replace(
        run,
        outcome=outcome,
        finished_at=ended,
        artifact=manifest.name,
        artifact_bytes=manifest.bytes,
        sha256=manifest.sha256,
        error=None if outcome is not Outcome.FAILED else f"the artifact is {manifest.state}",
        interrupted=False,
    )


def artifact_to_row(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": storable(artifact.name),
        "path": storable(artifact.path),
        "taken_at": to_micros(artifact.taken_at),
        "modified_at": to_micros(artifact.modified_at),
        "bytes": artifact.bytes,
        "raw_bytes": artifact.raw_bytes,
        "state": artifact.state,
        "pinned": artifact.pinned,
    }
