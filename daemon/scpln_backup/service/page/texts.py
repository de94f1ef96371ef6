"""The words that the status page needs. `english` and `japanese` have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.model import Stage, State, Trigger
    from scpln_backup.rules.health import Level


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language. What has braces is a format string; `day` gets month and day, `ago` and the like a duration."""

    title: str
    health: Mapping[Level, str]
    nothing_to_do: str
    to_do: str
    unreadable: str
    unreadable_help: str
    notice: str

    backing_up: str
    drilling: str
    starting: str
    waiting: str
    since: str
    stages: Mapping[Stage, str]

    last_good: str
    next_run: str
    deadline: str
    overdue_for: str
    restore_takes: str
    by_drill: str
    never: str
    none_yet: str
    not_planned: str
    not_measured: str
    ago: str
    in_future: str

    month: str
    outcomes_chart: str
    size_chart: str
    duration_chart: str
    newest: str
    least: str
    greatest: str
    no_values: str
    story: str
    counted: str
    no_run_days: str
    extent_story: str
    no_run: str
    as_table: str
    day: str
    date: str
    no_runs: str
    first_run: str
    idle_month: str

    artifacts: str
    counts: str
    suspect: str
    corrupt: str
    more: str
    no_artifacts: str
    name: str
    taken: str
    state: str
    size: str
    pinned: str
    states: Mapping[State, str]

    runs: str
    started: str
    outcome: str
    trigger: str
    duration: str
    artifact: str
    outcomes: Mapping[str, str]
    triggers: Mapping[Trigger, str]

    drills: str
    no_drills: str
    restored_in: str

    incidents: str
    no_incidents: str
    incident: str
    incident_due: str
    incident_overdue: str
    incident_help: str

    notifications: str
    no_channels: str
    channels: Mapping[str, str]
    up_to_date: str
    last_sent: str
    nothing_sent: str
    queued: str
    failing: str
    retry: str

    places: str
    source: str
    root: str
    list_separator: str
