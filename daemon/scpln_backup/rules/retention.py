"""What a sweep deletes and why it keeps the rest.

The age is `find -mtime`'s (the procedure's section 2): whole days of 86,400 s since the file's mtime, the
fraction dropped; past its time is more than `days` of them. The keep rules are restic's (`restic forget`): the
newest artifact of each of the last N periods that have one. An artifact goes only when it is past its time and
no rule holds it.
"""

from __future__ import annotations

from datetime import (
    UTC,
    datetime,
    timedelta,
    tzinfo,
)
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DAY = timedelta(days=1)


class Policy(msgspec.Struct, frozen=True):
    """The [retention] section. A quota of 0 is no rule; periods are those of the configured zone."""

    days: int = 30
    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_verified: int = 7


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as retention sees it: `modified_at` is what it ages by, `taken_at` what periods go by.

    `problem` says why it cannot be judged (its manifest is there and cannot be read): it may be the last good one.
    """

    name: str
    taken_at: datetime
    modified_at: datetime
    state: State
    pinned: bool = False
    in_use: bool = False
    problem: str | None = None


class Action(StrEnum):
    KEEP = "keep"
    DELETE = "delete"


class Verdict(msgspec.Struct, frozen=True):
    """`reason` is an English fragment for people (`sweep --explain`)."""

    name: str
    action: Action
    reason: str


def decide(
    candidates: Iterable[Candidate],
    policy: Policy,
    *,
    now: datetime,
    zone: tzinfo,
    frozen: str | None = None,
) -> list[Verdict]:
    """A verdict for every candidate, newest first.

    Never deleted, whatever their age: the newest `keep_verified` verified ones, pinned ones, ones being read,
    ones that cannot be judged, and everything while retention is `frozen` (why it is).
    """
    newest_first = sorted(candidates, key=lambda c: (c.taken_at.astimezone(UTC), c.name), reverse=True)
    held = _held_by_rule(newest_first, policy, zone)
    verdicts = []
    for candidate in newest_first:
        # In UTC: within one zone Python subtracts wall clocks, and a day of 25 hours would be one of 24.
        age = (now.astimezone(UTC) - candidate.modified_at.astimezone(UTC)) // _DAY
        reason = _protection(candidate, frozen) or _youth(age, policy.days) or held.get(candidate.name)
        if reason is None:
            verdicts.append(Verdict(candidate.name, Action.DELETE, f"{_days_old(age)}, past {policy.days}"))
        else:
            verdicts.append(Verdict(candidate.name, Action.KEEP, reason))
    return verdicts


def _protection(candidate: Candidate, frozen: str | None) -> str | None:
    if frozen is not None:
        return f"retention is frozen: {frozen}"
    if candidate.in_use:
        return "being read"
    if candidate.pinned:
        return "pinned"
    return candidate.problem


def _youth(age: int, days: int) -> str | None:
    if age > days:
        return None
    return f"{_days_old(age)}, kept for {days}"


def _days_old(age: int) -> str:
    if age < 0:
        return "dated in the future"
    return "1 day old" if age == 1 else f"{age} days old"


def _held_by_rule(newest_first: Sequence[Candidate], policy: Policy, zone: tzinfo) -> dict[str, str]:
    """The names that a keep rule holds, each with the first rule that does."""
    held: dict[str, str] = {}
    verified = [c for c in newest_first if c.state is State.VERIFIED]
    for candidate in verified[: policy.keep_verified]:
        held[candidate.name] = f"one of the newest {policy.keep_verified} verified"
    # A suspect or corrupt artifact must not take the place of the last good one of its period.
    sound = [c for c in newest_first if c.state not in {State.SUSPECT, State.CORRUPT}]
    for candidate in sound[: policy.keep_last]:
        held.setdefault(candidate.name, f"one of the newest {policy.keep_last} (keep_last)")
    for rule, quota, period_format in (
        ("keep_daily", policy.keep_daily, "%Y-%m-%d"),
        ("keep_weekly", policy.keep_weekly, "%G-W%V"),
        ("keep_monthly", policy.keep_monthly, "%Y-%m"),
        ("keep_yearly", policy.keep_yearly, "%Y"),
    ):
        newest_of: dict[str, Candidate] = {}
        for candidate in sound:
            newest_of.setdefault(candidate.taken_at.astimezone(zone).strftime(period_format), candidate)
        for period, candidate in list(newest_of.items())[:quota]:
            held.setdefault(candidate.name, f"the newest of {period} ({rule} {quota})")
    return held
