"""The Pushgateway as a channel: after each event that changes a metric all of them are pushed anew.

What is pushed stays there until the next push, a day later. So only what stays true that long is: all `backup_*`
metrics but `backup_running` (a run would seem to last for a day) and `backup_notification_*` (at the time of a push a
message waits, that very push). `process_*` are about a process that may be gone by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    DaemonStarted,
    DrillFinished,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RunFinished,
    ShrinkAccepted,
    TestMessage,
)
from scpln_backup.observers.planning import Channel, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from scpln_backup.notify.pushgateway import Pushgateway
    from scpln_backup.records.outbox import Cause, Entry

OURS = "backup_"
PASSING = ("backup_running", "backup_notification_")

_PUSHED_AFTER = (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    DaemonStarted,
    DrillFinished,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RunFinished,
    ShrinkAccepted,
    TestMessage,
)


@dataclass(frozen=True)
class Push:
    """Push the metrics as they are when it is sent."""


class PushgatewayChannel(Channel[Push]):
    """`metrics` makes a collector of the metrics as they are now. All that waits is one push."""

    name = "pushgateway"

    def __init__(self, gateway: Pushgateway, metrics: Callable[[], Collector]) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def next_step(self, waiting: Sequence[Entry], causes: Mapping[str, Cause]) -> Step[Push]:
        about = tuple(entry.id for entry in waiting if isinstance(entry.event, _PUSHED_AFTER))
        settles = waiting[-1].id
        if not about:
            return Step(settles=settles)
        return Step(settles=settles, letter=Push(), key=f"push {settles}", about=about)

    def send(self, letter: Push, key: str, *, doubtful: bool) -> None:
        self._gateway.push(Lasting(self._metrics()))


class Lasting(Collector):
    """Those of `metrics` that are pushed."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics.collect():
            if metric.name.startswith(OURS) and not metric.name.startswith(PASSING):
                yield metric
