"""Whether the room in the backup root will last, by the database's growth so far and by retention.

Growth is the median of the slopes between any two runs (Theil and Sen): neither a night on which nothing was
written, nor one import, nor the steps in which a SQLite file grows, sets it. Assumed are that the database goes on
growing so, that artifacts keep the newest one's share of its size, that every run succeeds, and that nothing else
fills or empties the file system.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.model import State
from scpln_backup.rules.retention import Action, Candidate, Policy, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import tzinfo

_DAY_SECONDS = 86_400
# Runs nearer to each other than a night says little of growth by the day.
_APART_SECONDS = 20 * 3_600
_SWEEP_SECONDS = 6 * 3_600
_MOST_SAMPLES = 120
_MOST_RUNS = 1_500
_USUAL_SHARE = 1 / 2  # what a run without a predecessor expects of its artifact


class Sample(msgspec.Struct, frozen=True):
    """A good run: when it began, the database's size, and the artifact's."""

    at: datetime
    raw_bytes: int
    artifact_bytes: int


class Stored(msgspec.Struct, frozen=True):
    """An artifact that is there, as retention sees it, and its size; one may stand for `count` of them."""

    candidate: Candidate
    bytes: int
    count: int = 1


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What there is today. `shared`: the database grows on the same file system."""

    source_bytes: int
    free_bytes: int
    shared: bool


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of it.

    `short_at` is the first run that would lack room, None when none does. `spare_bytes` is what the tightest run has
    left over (below 0: what it lacks), at `tightest_at`. `most_artifacts` is how many there will be at once.
    `growth_bytes` is the database's growth a day, by `samples` runs in `days` days.
    """

    growth_bytes: float
    samples: int
    days: int
    short_at: datetime | None
    spare_bytes: int
    tightest_at: datetime | None
    most_artifacts: int


class _Coming(msgspec.Struct, frozen=True):
    """A run to come: how much larger the database is then, and the artifacts that it finds."""

    at: datetime
    grown: int
    held: Sequence[Stored]


def growth_per_day(samples: Iterable[Sample]) -> float:
    """Bytes that the database grows a day; 0 for one that shrinks, and where fewer than two nights tell."""
    days = _night_by_night(samples)
    slopes = [
        (later.raw_bytes - earlier.raw_bytes) * _DAY_SECONDS / (later.at.timestamp() - earlier.at.timestamp())
        for place, earlier in enumerate(days)
        for later in days[place + 1 :]
    ]
    return max(0.0, median(slopes)) if slopes else 0.0


def forecast(
    samples: Sequence[Sample],
    stored: Sequence[Stored],
    slots: Sequence[datetime],
    *,
    policy: Policy,
    room: Room,
    needed: Callable[[int], int],
    now: datetime,
    zone: tzinfo,
) -> Outlook:
    """Live through the coming `slots`, in order; `needed` is the room that a run of so large a database asks for."""
    days = _night_by_night(samples)
    growth = growth_per_day(samples)
    coming = list(_live_through(slots, stored, _artifact_size(samples, room), growth, policy, now, zone))
    stored_now = sum(artifact.bytes for artifact in stored)

    def left(run: _Coming) -> int:
        freed = stored_now - sum(artifact.bytes for artifact in run.held)
        lost = run.grown if room.shared else 0
        return room.free_bytes + freed - lost - needed(room.source_bytes + run.grown)

    balance = [(left(run), run.at) for run in coming]
    spare_bytes, tightest_at = min(balance, key=lambda one: one[0], default=(room.free_bytes, None))
    return Outlook(
        growth_bytes=growth,
        samples=len(samples),
        days=round((days[-1].at.timestamp() - days[0].at.timestamp()) / _DAY_SECONDS) if days else 0,
        short_at=next((at for spare, at in balance if spare < 0), None),
        spare_bytes=spare_bytes,
        tightest_at=tightest_at,
        most_artifacts=max([_count(stored), *(_count(run.held) + 1 for run in coming)]),
    )


def _live_through(  # noqa: PLR0917 - called in one place, which names them
    slots: Sequence[datetime],
    stored: Sequence[Stored],
    size: Callable[[int], int],
    growth: float,
    policy: Policy,
    now: datetime,
    zone: tzinfo,
) -> Iterator[_Coming]:
    """Each run, and the sweep before it: where room is lacking a run sweeps first.

    Two things bound the time: of more than some 1,500 slots one stands for several, with artifacts as large as all of
    theirs, and there is a sweep every six hours at the most, which leaves a little more lying than there will be.
    """
    held, swept_at = list(stored), 0.0
    weight = -(-len(slots) // _MOST_RUNS)
    for slot in slots[::weight] if slots else ():
        if slot.timestamp() - swept_at >= _SWEEP_SECONDS:
            held, swept_at = _kept(held, policy, slot, zone), slot.timestamp()
        grown = int(growth * (slot.timestamp() - now.timestamp()) / _DAY_SECONDS)
        yield _Coming(slot, grown, tuple(held))
        candidate = Candidate(name=f"{slot.timestamp()}", taken_at=slot, modified_at=slot, state=State.VERIFIED)
        held.append(Stored(candidate, size(grown) * weight, weight))


def _night_by_night(samples: Iterable[Sample]) -> list[Sample]:
    """Oldest first, so far apart that each pair tells of growth, and not too many: pairs are quadratic."""
    taken: list[Sample] = []
    for sample in sorted(samples, key=lambda one: one.at.timestamp(), reverse=True):
        if not taken or taken[-1].at.timestamp() - sample.at.timestamp() >= _APART_SECONDS:
            taken.append(sample)
    return taken[:_MOST_SAMPLES][::-1]


def _artifact_size(samples: Sequence[Sample], room: Room) -> Callable[[int], int]:
    """The size of an artifact of the database when it has grown by so many bytes."""
    last = max((one for one in samples if one.raw_bytes), key=lambda one: one.at.timestamp(), default=None)
    share = _USUAL_SHARE if last is None else last.artifact_bytes / last.raw_bytes
    return lambda grown: int((room.source_bytes + grown) * share)


def _count(held: Iterable[Stored]) -> int:
    return sum(artifact.count for artifact in held)


def _kept(held: Sequence[Stored], policy: Policy, at: datetime, zone: tzinfo) -> list[Stored]:
    verdicts = decide([artifact.candidate for artifact in held], policy, now=at, zone=zone)
    doomed = {verdict.name for verdict in verdicts if verdict.action is Action.DELETE}
    return [artifact for artifact in held if artifact.candidate.name not in doomed]
