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
    `interrupted` marks a run that was killed or stopped rather than one that failed by itself.
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
    artifacts from then on only.
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
    accepted_at: datetime | None = None
    pinned: bool = False
    run: RunRecord | None = None
    source: SourceFile | None = None
    host: str | None = None
    program: str | None = None
    sqlite: str | None = None


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
