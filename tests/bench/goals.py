"""What scpln-backup is meant to reach, each with what was found and what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from contenders import BALANCED, BORG, FAST, LITESTREAM, RESTIC, SEED
from floors import cores
from measure import middle
from rounds import FIRST, RESTORE, held

from scpln_backup.model import Preset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from contenders import Contender
    from idle import Idle
    from measure import Sample
    from rounds import Size

MB = 1_000_000
GIB = 1024  # in MiB

_LOCK_SECONDS_PER_GIB = 0.3
_LONGEST_BEYOND_THE_LOCK = 0.1
_P99_RATIO = 1.5
_ANONYMOUS = 60 * MB
_GROWTH_FOURFOLD = 4.4
_IDLE = 45 * MB


class Goal(NamedTuple):
    """`reached` is None where this run does not tell."""

    what: str
    least: str
    found: str
    reached: bool | None
    bound: str = ""


def goals(sizes: Sequence[Size], idle: Mapping[str, Idle]) -> list[Goal]:
    """At the size nearest to a GiB; growth and memory at the largest."""
    main = min(sizes, key=lambda size: abs(size.mib - GIB))
    return [
        *_speed(main),
        *_peers(main),
        *_lock(main),
        *_wal(main),
        _memory(max(sizes, key=lambda size: size.mib)),
        _growth(sizes),
        _restore(main),
        _idle(idle),
    ]


def _first(size: Size, contender: Contender, kind: str = FIRST) -> Sample | None:
    """The medians of what succeeded."""
    samples = size.nights[kind].get(contender)
    sample = middle(samples) if samples else None
    return sample if sample is not None and sample.problem is None else None


def _unknown(what: str, least: str) -> Goal:
    return Goal(what, least, "not measured", None)


def _speed(size: Size) -> Iterator[Goal]:
    seed = _first(size, SEED)
    for contender, times, smaller in ((FAST, 6, False), (BALANCED, 3, True)):
        what = f"proven backup, `{contender.preset}`, against the seed's unproven one"
        what += ", at a smaller file" if smaller else ""
        ours = _first(size, contender)
        if seed is None or ours is None:
            yield _unknown(what, f"{times} x faster")
            continue
        ratio = seed.wall / ours.wall
        found = f"{ratio:.1f} x" + (f", {ours.stored / seed.stored:.2f} of its size" if smaller else "")
        reached = ratio >= times and (not smaller or ours.stored < seed.stored)
        bound = ""
        if size.floors is not None and contender.preset is not None:
            floor = size.floors.backup(contender.preset)
            bound = f"{seed.wall / floor:.1f} x: {floor:.2f} s for one copy, then a check beside compression and proof"
        yield Goal(what, f"{times} x faster", found, reached, bound)


def _peers(size: Size) -> Iterator[Goal]:
    ours = _first(size, BALANCED)
    for peer in (RESTIC, BORG, LITESTREAM):
        what = f"`balanced`, proven, against {peer.name.partition(',')[0]}, unproven"
        theirs = _first(size, peer)
        if ours is None or theirs is None:
            yield _unknown(what, "faster, smaller")
            continue
        found = f"{theirs.wall / ours.wall:.1f} x, {ours.stored / theirs.stored:.2f} of its size"
        bound = ""
        if size.floors is not None:
            bound = f"{theirs.wall / size.floors.backup(Preset.BALANCED):.1f} x"
        reached = ours.wall < theirs.wall and ours.stored < theirs.stored
        yield Goal(what, "faster, smaller", found, reached, bound)


def _lock(size: Size) -> Iterator[Goal]:
    felt = size.beside.get("delete")
    what, waits = "lock held on a rollback-journal source, per GiB", "longest wait of a writer meanwhile, errors"
    least, beyond = f"≤ {_LOCK_SECONDS_PER_GIB} s", f"≤ the lock + {_LONGEST_BEYOND_THE_LOCK} s, 0"
    good = [sample for sample in felt.samples.get(BALANCED, []) if not sample.problem] if felt is not None else []
    if felt is None or not good:
        yield from (_unknown(what, least), _unknown(waits, beyond))
        return
    longest_lock = max(map(held, good))
    per_gib = longest_lock * GIB / size.mib
    read = f"{size.floors.read * GIB / size.mib / cores():.2f} s: reading on all cores" if size.floors else ""
    yield Goal(what, least, f"{per_gib:.2f} s", per_gib <= _LOCK_SECONDS_PER_GIB, read)
    report = felt.reports[BALANCED]
    longest, alone = report.percentile(1), felt.alone.percentile(1)
    yield Goal(
        waits,
        beyond,
        f"{longest:.2f} s with a lock of {longest_lock:.2f} s, {len(report.errors)}",
        longest <= longest_lock + _LONGEST_BEYOND_THE_LOCK and not report.errors,
        f"{alone:.2f} s with no backup",
    )


def _wal(size: Size) -> Iterator[Goal]:
    what, least = "WAL source: a writer's p99 during a backup against without", f"≤ {_P99_RATIO} x"
    felt = size.beside.get("wal")
    report = felt.reports.get(BALANCED) if felt is not None else None
    if felt is None or report is None:
        yield _unknown(what, least)
        return
    alone, during = felt.alone.percentile(0.99), report.percentile(0.99)
    found = f"{during / alone:.2f} x ({during * 1000:.1f} ms against {alone * 1000:.1f} ms)"
    yield Goal(what, least, found, during / alone <= _P99_RATIO)


def _memory(size: Size) -> Goal:
    what = f"peak anonymous memory of a whole run, {size.mib} MiB"
    found = {each.preset: sample for each in (FAST, BALANCED) if (sample := _first(size, each)) is not None}
    if not found:
        return _unknown(what, f"≤ {_ANONYMOUS // MB} MB")
    most = max(sample.anonymous for sample in found.values())
    told = ", ".join(f"{sample.anonymous / MB:.0f} MB `{preset}`" for preset, sample in found.items())
    return Goal(what, f"≤ {_ANONYMOUS // MB} MB", told, most <= _ANONYMOUS)


def _growth(sizes: Sequence[Size]) -> Goal:
    large = max(sizes, key=lambda size: size.mib)
    small = next((size for size in sizes if size.mib * 4 == large.mib), None)
    least = f"≤ {_GROWTH_FOURFOLD} x"
    if small is None:
        return _unknown("wall time from 1 to 4 GiB", least)
    what = f"wall time from {small.mib} to {large.mib} MiB"
    found = {}
    for contender in (FAST, BALANCED):
        before, after = _first(small, contender), _first(large, contender)
        if before is not None and after is not None:
            found[contender.preset] = after.wall / before.wall
    if not found:
        return _unknown(what, least)
    told = ", ".join(f"{ratio:.1f} x `{preset}`" for preset, ratio in found.items())
    return Goal(what, least, told, max(found.values()) <= _GROWTH_FOURFOLD, "4 x")


def _restore(size: Size) -> Goal:
    what, least = "restore, proven, against `gunzip` and integrity_check", "2 x faster"
    seed, ours = _first(size, SEED, RESTORE), _first(size, BALANCED, RESTORE)
    if seed is None or ours is None:
        return _unknown(what, least)
    ratio = seed.wall / ours.wall
    bound = ""
    if size.floors is not None:
        floor = size.floors.restore()
        bound = f"{seed.wall / floor:.1f} x: {floor:.2f} s for inflating and writing, then a check beside the sha256"
    return Goal(what, least, f"{ratio:.1f} x", ratio >= 2, bound)


def _idle(idle: Mapping[str, Idle]) -> Goal:
    ours = idle["scpln-backup serve"]
    least = f"≤ {_IDLE // MB} MB"
    return Goal("idle daemon, resident", least, f"{ours.memory / MB:.0f} MB", ours.memory <= _IDLE)
