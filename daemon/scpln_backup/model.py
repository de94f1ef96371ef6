"""The words of the program as values: what a backup, its proof and its run are.

Times are aware datetimes; sizes are bytes; durations are seconds.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from enum import StrEnum

import msgspec


class Trigger(StrEnum):
    """Who asked for a run."""

    SCHEDULE = "schedule"
    SIGNAL = "signal"
    CLI = "cli"
    CATCH_UP = "catch-up"


class Outcome(StrEnum):
    """How a run ended. `degraded`: the artifact is proven and published, a later step failed."""

    SUCCESS = "success"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    FAILED = "failed"


class State(StrEnum):
    """What is known of an artifact. `unverified`: nothing was ever proven (the old procedure left it)."""

    VERIFIED = "verified"
    SUSPECT = "suspect"
    UNVERIFIED = "unverified"
    CORRUPT = "corrupt"


class Compression(StrEnum):
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        return ".db.gz" if self is Compression.GZIP else ".db.zst"


class Preset(StrEnum):
    """What compression is asked to be; `balanced` is at least as small as `gzip -6`."""

    FAST = "fast"
    BALANCED = "balanced"
    SMALL = "small"


class Stage(StrEnum):
    """The stages of a run, in order; `backup_last_duration_seconds` is labelled with them."""

    PREFLIGHT = "preflight"
    SNAPSHOT = "snapshot"
    CHECK = "check"
    COMPRESS = "compress"
    PROVE = "prove"
    PUBLISH = "publish"
    SWEEP = "sweep"


class Topic(StrEnum):
    """What a message is about."""

    RUN = "run"
    OVERDUE = "overdue"
    ARTIFACT = "artifact"
    DRILL = "drill"
    RESTORE = "restore"
    INCIDENT = "incident"
    REVIEW = "review"
    SERVICE = "service"


class Severity(StrEnum):
    """How much a message matters. `critical` is what somebody must get up for."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Fingerprint(msgspec.Struct, frozen=True):
    """What is known of a snapshot's content.

    `tables` maps each ordinary table to its row count; None where SQLite cannot count it (a virtual table
    whose module is not loaded here).
    """

    sha256: str
    size_bytes: int
    page_size: int
    page_count: int
    schema_sha256: str
    user_version: int
    application_id: int
    tables: dict[str, int | None]
    alembic_version: str | None = None

    @property
    def rows(self) -> int:
        return sum(count for count in self.tables.values() if count is not None)


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a backup. While it lasts `finished_at` is None and the outcome `failed`.

    `writer_blocked_seconds` is how long the run held a lock that a writer of the source must wait for.
    `interrupted` marks a run that was killed or stopped rather than one that failed by itself.  `reused_from` is the
    artifact whose bytes the new one has, because the database had not changed since; `wal_growth_bytes` is by how much
    the -wal grew that could not be begun anew meanwhile.
    """

    trigger: Trigger
    started_at: datetime
    outcome: Outcome = Outcome.FAILED
    id: int = 0
    finished_at: datetime | None = None
    artifact: str | None = None
    raw_bytes: int | None = None
    artifact_bytes: int | None = None
    sha256: str | None = None
    raw_sha256: str | None = None
    duration_seconds: float | None = None
    writer_blocked_seconds: float | None = None
    stage_seconds: dict[Stage, float] = msgspec.field(default_factory=dict)
    error: str | None = None
    interrupted: bool = False
    reused_from: str | None = None
    wal_growth_bytes: int | None = None


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the live database's file was, for a restore that finds none to take it from. `mode` is the octal text."""

    path: str
    owner: str
    group: str
    mode: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON beside an artifact (`NAME.json`).

    `sha256` and `bytes` are of the artifact as stored, `fingerprint` of the database in it (None when it could not be
    read: a corrupt artifact of the old procedure).
    `accepted_at` is set when an operator said that a suspect shrink was meant; later runs are compared with
    artifacts from then on only. `preset` is None for an artifact of the old procedure. `checked_at` is when the
    database in it last passed integrity_check and had its rows counted.
    """

    name: str
    database: str
    environment: str
    taken_at: datetime
    compression: Compression
    bytes: int
    sha256: str
    fingerprint: Fingerprint | None
    state: State
    format: int = 1
    state_reason: str | None = None
    verified_at: datetime | None = None
    checked_at: datetime | None = None
    accepted_at: datetime | None = None
    pinned: bool = False
    preset: Preset | None = None
    run: RunRecord | None = None
    source: SourceFile | None = None
    host: str | None = None
    program: str | None = None
    sqlite: str | None = None


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What could be read of one table. `rows` is a lower bound when `at_least`, None when nothing could be counted.

    `newest` is the largest instant in `column`, the table's column that tells when a row was last touched.
    """

    rows: int | None = None
    at_least: bool = False
    newest: datetime | None = None
    column: str | None = None
    problem: str | None = None


class TableLoss(msgspec.Struct, frozen=True, kw_only=True):
    """One table in the database that was replaced and in the restored one; None where it has no such table."""

    name: str
    before: TableFacts | None
    after: TableFacts | None

    @property
    def lost_rows(self) -> int | None:
        """Rows that are gone at the least; None when it cannot be told."""
        before = self.before.rows if self.before is not None else 0
        after = self.after.rows if self.after is not None else 0
        return None if before is None or after is None else max(0, before - after)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore cost. `taken_at` is the instant of the restored snapshot: all that was written later is gone.

    `problem` says why the old database could not be read at all; then `tables` knows only the restored side.
    """

    taken_at: datetime
    tables: tuple[TableLoss, ...]
    problem: str | None = None


class RestoreOutcome(StrEnum):
    """`rolled-back`: the new database was in place and did not stand its test; the old one is back."""

    SUCCESS = "success"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a restore did, for its timeline."""

    name: str
    at: datetime
    seconds: float = 0.0
    detail: str | None = None


class RestoreRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One restore of the live database. `set_aside` is the folder that holds the replaced one."""

    started_at: datetime
    artifact: str
    target: str
    outcome: RestoreOutcome = RestoreOutcome.FAILED
    id: int = 0
    finished_at: datetime | None = None
    artifact_sha256: str | None = None
    taken_at: datetime | None = None
    replaced: bool = False
    set_aside: str | None = None
    loss: Loss | None = None
    steps: tuple[Step, ...] = ()
    user: str | None = None
    error: str | None = None


class DrillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One rehearsed restore. `restore_seconds` is from the artifact to a checked database, without the smoke test.

    `smoke_exit_code` is None when no smoke test is configured or it did not get that far; `output` is the file
    that keeps what the smoke test printed.
    """

    trigger: Trigger
    started_at: datetime
    outcome: Outcome = Outcome.FAILED
    id: int = 0
    finished_at: datetime | None = None
    artifact: str | None = None
    restore_seconds: float | None = None
    smoke_exit_code: int | None = None
    output: str | None = None
    error: str | None = None


class RebuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the configured rebuild script. `since` is the YYYY-MM-DD it got; `output` the file of its output."""

    started_at: datetime
    since: str
    finished_at: datetime | None = None
    outcome: Outcome = Outcome.FAILED
    exit_code: int | None = None
    output: str | None = None
    error: str | None = None


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The 24 hours after a restore (section 5 of the procedure), until its report is complete.

    `scope` and `prevention` are what only people can write; a report is complete when both are there.
    """

    opened_at: datetime
    deadline_at: datetime
    restore: RestoreRecord
    id: int = 0
    closed_at: datetime | None = None
    rebuilds: tuple[RebuildRecord, ...] = ()
    scope: str | None = None
    prevention: str | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as a store lists it. `modified_at` is the file's mtime, which retention ages by."""

    name: str
    path: str
    taken_at: datetime
    modified_at: datetime
    bytes: int
    state: State
    raw_bytes: int | None = None
    pinned: bool = False
    stores: tuple[str, ...] = ("local",)
    manifest: Manifest | None = None
    problem: str | None = None
