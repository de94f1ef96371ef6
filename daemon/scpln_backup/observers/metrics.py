"""What Prometheus scrapes, read from the catalog at each scrape, so that it survives a restart."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from scpln_backup.errors import BackupError
from scpln_backup.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from scpln_backup.model import RunRecord
    from scpln_backup.records.catalog import Catalog
    from scpln_backup.records.outbox import ChannelState

log = logging.getLogger(__name__)

TOTAL = "total"


@dataclass(frozen=True, kw_only=True)
class Live:
    """What only the running daemon knows, and where the rest is read.

    `broke_off`: the last run could not begin, or hit a bug; the catalog may not have heard of it.
    """

    catalog: Catalog
    database: str
    environment: str
    version: str
    running: bool
    broke_off: bool
    next_run_at: datetime | None
    source_bytes: int | None
    drilling: bool = False


class BackupCollector(Collector):
    """The `backup_*` metrics, each with the labels `database` and `environment`.

    A catalog that cannot be read must not break the scrape, nor look like a night that went well: then
    `backup_catalog_readable` is 0, `backup_success` is 0, and what comes from the catalog is absent. The extra
    metric is there because an alert on `backup_success` alone would send people to look for a failed run.
    """

    def __init__(self, live: Callable[[], Live]) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        live = self._live()
        family = _Families(live)
        yield family.gauge("backup_build_info", "The running version.", 1, version=live.version)
        yield family.gauge("backup_running", "1 while a run is under way.", live.running)
        yield from family.time(
            "backup_next_run_timestamp_seconds", "When the next scheduled run begins.", live.next_run_at
        )
        yield from family.maybe("backup_source_size_bytes", "Size of the live database's main file.", live.source_bytes)
        try:
            # All of it before the first sample: half a catalog would look like a whole one.
            recorded = [
                *_from_runs(family, live),
                *_from_artifacts(family, live.catalog),
                *_from_way_back(family, live),
                *_from_outbox(family, live.catalog),
            ]
        except (BackupError, sqlite3.Error, OSError) as error:
            log.warning("metrics without the catalog: %s", error)
            yield family.gauge("backup_success", SUCCESS_HELP, 0)
            yield family.gauge("backup_catalog_readable", READABLE_HELP, 0)
            return
        yield from recorded
        yield family.gauge("backup_catalog_readable", READABLE_HELP, 1)


SUCCESS_HELP = "1 if the last finished run was a success; 0 if it was not, or there was none."
READABLE_HELP = "1 if the catalog could be read for this scrape."


class _Families:
    """Makes metric families that carry the labels all of them share."""

    def __init__(self, live: Live) -> None:
        self._shared = {"database": live.database, "environment": live.environment}

    def gauge(self, name: str, text: str, value: float, **labels: str) -> Metric:
        return self._filled(GaugeMetricFamily, name, text, [(labels, value)])

    def maybe(self, name: str, text: str, value: float | None) -> Iterator[Metric]:
        """Nothing at all for a value that is not known: 0 would be a lie."""
        if value is not None:
            yield self.gauge(name, text, value)

    def time(self, name: str, text: str, at: datetime | None) -> Iterator[Metric]:
        yield from self.maybe(name, text, at.timestamp() if at is not None else None)

    def gauges(self, name: str, text: str, samples: Samples) -> Metric:
        return self._filled(GaugeMetricFamily, name, text, samples)

    def counters(self, name: str, text: str, samples: Samples) -> Metric:
        return self._filled(CounterMetricFamily, name, text, samples)

    def _filled(
        self,
        kind: type[GaugeMetricFamily | CounterMetricFamily],
        name: str,
        text: str,
        samples: Samples,
    ) -> Metric:
        own = list(samples[0][0]) if samples else []
        family = kind(name, text, labels=[*self._shared, *own])
        for labels, value in samples:
            family.add_metric([*self._shared.values(), *(labels[key] for key in own)], float(value))
        return family


if TYPE_CHECKING:
    Samples = Sequence[tuple[Mapping[str, str], float]]


def _from_runs(family: _Families, live: Live) -> Iterator[Metric]:
    catalog = live.catalog
    # The run under way stands in the catalog as if it had been killed: it must not be counted as that.
    under_way = catalog.unfinished() if live.running else None
    running_id = under_way.id if under_way is not None else None
    last, good = catalog.last_finished(running_id), catalog.last_good(datetime.now(UTC))
    counts = [
        ({"trigger": trigger.value, "outcome": outcome.value}, count)
        for (trigger, outcome), count in sorted(catalog.run_counts(running_id).items())
    ]
    success = last is not None and last.outcome is Outcome.SUCCESS and not live.broke_off
    yield family.gauge("backup_success", SUCCESS_HELP, success)
    yield family.counters("backup_runs_total", "Finished runs by who asked for them and how they ended.", counts)
    if last is not None:
        yield from _from_last_run(family, last)
    if good is not None:
        yield from family.time(
            "backup_last_success_timestamp_seconds",
            "End of the last run that left a proven artifact (success or degraded).",
            good.finished_at,
        )
        yield from family.maybe(
            "backup_last_size_bytes", "Size of the artifact of the last good run.", good.artifact_bytes
        )


def _from_last_run(family: _Families, last: RunRecord) -> Iterator[Metric]:
    yield from family.time(
        "backup_last_run_timestamp_seconds",
        "End of the last run, however it ended; its start if it was killed.",
        last.finished_at or last.started_at,
    )
    stages: list[tuple[Mapping[str, str], float]] = [
        ({"stage": stage.value}, seconds) for stage, seconds in last.stage_seconds.items()
    ]
    if last.duration_seconds is not None:
        stages.append(({"stage": TOTAL}, last.duration_seconds))
    yield family.gauges(
        "backup_last_duration_seconds",
        'Duration of the last run, of each stage and of all ("total"); stages may overlap.',
        stages,
    )
    yield from family.maybe(
        "backup_writer_blocked_seconds",
        "How long the last run held a lock that a writer of the database waits for.",
        last.writer_blocked_seconds,
    )


def _from_way_back(family: _Families, live: Live) -> Iterator[Metric]:
    """Drills and incidents; nothing of a drill before the first one, so that no alert goes off on a new host."""
    catalog = live.catalog
    under_way = catalog.unfinished_drill() if live.drilling else None
    last, good = catalog.last_drill(under_way.id if under_way is not None else None), catalog.last_good_drill()
    if last is not None:
        yield family.gauge("backup_drill_success", "1 if the last drill succeeded.", last.outcome is Outcome.SUCCESS)
    yield from family.time(
        "backup_drill_last_success_timestamp_seconds",
        "End of the last drill that succeeded.",
        good.finished_at if good is not None else None,
    )
    yield from family.maybe(
        "backup_drill_restore_duration_seconds",
        "From artifact to checked database in the newest drill that got there: the expected recovery time.",
        catalog.measured_restore_seconds(),
    )
    yield from family.time(
        "backup_incident_deadline_timestamp_seconds",
        "When the report of the open incident is due; absent when none is open.",
        catalog.incident_deadline(),
    )


def _from_outbox(family: _Families, catalog: Catalog) -> Iterator[Metric]:
    channels = catalog.channels()

    def each(value: Callable[[ChannelState], float | None]) -> Samples:
        known = ((channel.name, value(channel)) for channel in channels)
        return [({"channel": name}, number) for name, number in known if number is not None]

    yield family.gauges(
        "backup_notification_queue_length",
        "Events that a channel has not dealt with.",
        each(lambda channel: channel.waiting),
    )
    yield family.gauges(
        "backup_notification_oldest_timestamp_seconds",
        "When the oldest event happened that a channel has not dealt with; absent when none waits.",
        each(lambda channel: channel.oldest_at.timestamp() if channel.oldest_at is not None else None),
    )
    yield family.counters(
        "backup_notification_failures_total",
        "Deliveries that did not get through.",
        each(lambda channel: channel.failures),
    )
    yield family.counters(
        "backup_notification_sent_total", "Deliveries that got through.", each(lambda channel: channel.sent)
    )


def _from_artifacts(family: _Families, catalog: Catalog) -> Iterator[Metric]:
    summary = catalog.artifact_summary()
    yield family.gauge("backup_artifacts", "Artifacts in the backup root.", summary.count)
    yield family.gauge("backup_artifacts_size_bytes", "Bytes of all artifacts together.", summary.bytes)
    yield family.gauge("backup_verified_artifacts", "Artifacts whose content is proven.", summary.verified)
    yield family.counters(
        "backup_retention_deleted_total", "Artifacts that retention deleted.", [({}, catalog.deleted_count())]
    )
