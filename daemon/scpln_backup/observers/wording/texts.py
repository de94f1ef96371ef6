"""What a language has to say: one structure, filled in by `english` and `japanese`.

What has braces is a format string; its fields are those of the same text in every language (a test compares them).
`what_…` follow the database's name in a headline; the others are sentences, but for `Labels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.model import RestoreOutcome, Trigger
    from scpln_backup.rules.report import Part


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of facts."""

    began: str
    size: str
    duration: str
    writers: str
    unchanged: str
    trigger: str
    next_run: str
    page: str
    artifact: str
    taken: str
    target: str
    user: str
    restore_time: str
    smoke_test: str
    output: str
    set_aside: str
    opened: str
    due: str
    closed: str
    whole: str
    host: str
    unit: str
    version: str


@dataclass(frozen=True, kw_only=True)
class RunTexts:
    """About runs, and about those that did not happen."""

    what_success: str
    what_recovered: str
    what_degraded: str
    what_suspect: str
    what_failed: str
    what_interrupted: str
    what_overdue: str

    failures_over: str
    gap_over: str
    gap_over_since: str
    degraded: str
    degraded_do: str
    shrank: str
    suspect: str
    suspect_meant: str
    suspect_not_meant: str
    suspect_restore: str
    in_a_row: str
    failed_do: str
    interrupted: str
    interrupted_do: str
    overdue: str
    overdue_never: str
    overdue_do: str


@dataclass(frozen=True, kw_only=True)
class ServiceTexts:
    """About the service that makes the backups."""

    what_failed: str
    what_runs_again: str
    what_started: str
    failed: str
    failed_do: str
    runs_again: str


@dataclass(frozen=True, kw_only=True)
class ArtifactTexts:
    """About one artifact."""

    what_corrupt: str
    what_sound: str
    what_deleted: str
    corrupt_do: str
    corrupt_more: str
    sound: str
    deleted: str
    deleted_over: str


@dataclass(frozen=True, kw_only=True)
class DrillTexts:
    """About rehearsed restores."""

    what_passed: str
    what_recovered: str
    what_degraded: str
    what_failed: str
    passed: str
    failed: str
    failed_do: str
    smoke_passed: str
    smoke_failed: str
    smoke_none: str


@dataclass(frozen=True, kw_only=True)
class RestoreTexts:
    """About restores of the live database."""

    what_started: str
    what_ended: Mapping[RestoreOutcome, str]
    started: str
    broken_off: str
    rebuild: str
    old_in_place: str
    look_at_error: str


@dataclass(frozen=True, kw_only=True)
class IncidentTexts:
    """About the 24 hours after a restore."""

    what_opened: str
    what_overdue: str
    what_closed: str
    opened: str
    opened_do: str
    overdue: str
    overdue_do: str
    closed: str
    closed_late: str
    parts: Mapping[Part, str]


@dataclass(frozen=True, kw_only=True)
class DigestTexts:
    """About many events in one message. `line` tells one of them."""

    what: str
    intro: str
    grave: str
    line: str
    whole: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language.

    `units` are those of support.text.human_duration. `unit_space` stands between a number and its unit, `unit_gap`
    between two of these, `separator` in a list, `within` around what is said beside.
    """

    headline: str
    error: str
    no_error: str
    separator: str
    within: str
    units: Mapping[str, str]
    unit_space: str
    unit_gap: str
    against: str
    against_one: str
    one_run: str
    many_runs: str
    from_database: str
    at_most: str
    none_planned: str
    last_good: str
    no_good: str
    triggers: Mapping[Trigger, str]
    month: str
    review_what: str
    review: str
    review_unticketed: str
    test_what: str
    test: str
    test_over: str
    other_what: str
    shortened: str

    labels: Labels
    run: RunTexts
    service: ServiceTexts
    artifact: ArtifactTexts
    drill: DrillTexts
    restore: RestoreTexts
    incident: IncidentTexts
    digest: DigestTexts
