"""What a check finds."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Grade(StrEnum):
    """`critical`: tonight's run, an alert or a restore would fail. `warning`: it may, or something is less safe."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


_BY_WEIGHT = (Grade.OK, Grade.WARNING, Grade.CRITICAL)


class Verdict(msgspec.Struct, frozen=True):
    """What was seen, on one line, and what to do about it (None where all is well)."""

    grade: Grade
    detail: str
    advice: str | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict with the name of its check. The first five fields are the contract of `doctor --json`."""

    check: str
    ok: bool
    detail: str
    level: Grade
    advice: str | None
    area: str


def good(detail: str) -> Verdict:
    return Verdict(Grade.OK, detail)


def doubtful(detail: str, advice: str) -> Verdict:
    return Verdict(Grade.WARNING, detail, advice)


def bad(detail: str, advice: str) -> Verdict:
    return Verdict(Grade.CRITICAL, detail, advice)


def worst(verdicts: Iterable[Verdict]) -> Grade:
    return max((verdict.grade for verdict in verdicts), key=_BY_WEIGHT.index, default=Grade.OK)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for several things of one kind: what is wrong with any of them, else what is good of all."""
    given = list(verdicts)
    troubles = [verdict for verdict in given if verdict.grade is not Grade.OK]
    shown = troubles or given
    advice = dict.fromkeys(verdict.advice for verdict in troubles if verdict.advice is not None)
    return Verdict(
        worst(given), "; ".join(verdict.detail for verdict in shown), "; ".join(advice) if troubles else None
    )


def finding(check: str, area: str, verdict: Verdict) -> Finding:
    return Finding(
        check=check,
        ok=verdict.grade is Grade.OK,
        detail=_line(verdict.detail),
        level=verdict.grade,
        advice=_line(verdict.advice) if verdict.advice is not None else None,
        area=area,
    )


def _line(text: str) -> str:
    return " ".join(text.split())
