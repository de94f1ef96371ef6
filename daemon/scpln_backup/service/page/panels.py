"""The thirty days: three charts over the same columns, and what they say in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.service.page import charts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scpln_backup.service.page.charts import Bar, Column, Day, Extent
    from scpln_backup.service.page.texts import Texts
    from scpln_backup.service.page.words import Words

# Pixels of the drawings: a mark (on a wide screen the style makes it larger), a row of marks, the bars.
MARK = 8
ROW = 16
BARS_HEIGHT = 48


@dataclass(frozen=True)
class Placed:
    """A mark in the middle of a column; `middle` is from above."""

    kind: str
    middle: float


@dataclass(frozen=True)
class Slot:
    """A day in all charts. `title` says all there is to know of it; `tick` is its date where the axis has one."""

    column: Column
    title: str
    marks: tuple[Placed, ...]
    size: Bar | None
    duration: Bar | None
    tick: str | None


@dataclass(frozen=True)
class Row:
    """A day in the table."""

    date: str
    endings: tuple[tuple[str, str], ...]
    size: str
    duration: str


@dataclass(frozen=True)
class Measure:
    """A chart of bars. `figures` are label and value; `story` is for those who don't see it."""

    title: str
    figures: tuple[tuple[str, str], ...]
    story: str


@dataclass(frozen=True)
class Month:
    """`counts` is the legend of the marks: kind, and how many in words. `marks_height` is in pixels."""

    slots: tuple[Slot, ...]
    marks_height: int
    rows: tuple[Row, ...]
    counts: tuple[tuple[str, str], ...]
    story: str
    sizes: Measure
    durations: Measure


NO_RUN = "none"


def month(days: Sequence[Day], texts: Texts, words: Words) -> Month:
    """`days` oldest first."""
    counts = _counts(days, texts)
    first, last = days[0].date.isoformat(), days[-1].date.isoformat()

    def measure(title: str, values: Sequence[float | None], say: Callable[[float], str]) -> Measure:
        return _measure(title, charts.extent(values), say, texts, first=first, last=last)

    told = texts.list_separator.join(text for _, text in counts)
    return Month(
        slots=tuple(_slots(days, texts, words)),
        marks_height=_marks_height(days),
        rows=tuple(_row(day, texts, words) for day in reversed(days) if day.runs or day.expected),
        counts=tuple(counts),
        story=texts.story.format(first=first, last=last, counts=told or texts.no_run),
        sizes=measure(texts.size_chart, [day.size for day in days], words.size),
        durations=measure(texts.duration_chart, [day.longest for day in days], words.duration),
    )


def _slots(days: Sequence[Day], texts: Texts, words: Words) -> Iterator[Slot]:
    ticks = charts.ticks(len(days))
    height = _marks_height(days)
    columns = charts.columns(len(days))
    sizes = charts.bars([day.size for day in days], BARS_HEIGHT)
    durations = charts.bars([day.longest for day in days], BARS_HEIGHT)
    for place, (day, column, size, duration) in enumerate(zip(days, columns, sizes, durations, strict=True)):
        yield Slot(
            column=column,
            title=_title(day, texts, words),
            marks=_placed(day, height),
            size=size,
            duration=duration,
            tick=words.day(day.date) if place in ticks else None,
        )


def _marks_height(days: Sequence[Day]) -> int:
    return ROW * max([1, *(len(charts.marks(day)) for day in days)])


def _placed(day: Day, height: int) -> tuple[Placed, ...]:
    kinds = charts.marks(day) or ([NO_RUN] if day.expected else [])
    return tuple(Placed(kind, height - (level + 0.5) * ROW) for level, kind in enumerate(kinds))


def _title(day: Day, texts: Texts, words: Words) -> str:
    parts = [text for _, text in _endings(day, texts)] or [texts.no_run]
    if day.size is not None:
        parts.append(words.size(day.size))
    if day.longest is not None:
        parts.append(words.duration(day.longest))
    return f"{day.date.isoformat()}: {texts.list_separator.join(parts)}"


def _row(day: Day, texts: Texts, words: Words) -> Row:
    return Row(
        date=words.day(day.date),
        endings=tuple(_endings(day, texts)) or ((NO_RUN, texts.no_run),),
        size="" if day.size is None else words.size(day.size),
        duration="" if day.longest is None else words.duration(day.longest),
    )


def _endings(day: Day, texts: Texts) -> list[tuple[str, str]]:
    """How the runs of a day ended; a number only where there is more than one."""
    return [
        (kind, texts.outcomes[kind] if count == 1 else texts.counted.format(count=count, what=texts.outcomes[kind]))
        for kind, count in day.endings.items()
    ]


def _counts(days: Sequence[Day], texts: Texts) -> list[tuple[str, str]]:
    found: Counter[str] = Counter()
    for day in days:
        found.update(day.endings)
    told = [
        (kind, texts.counted.format(count=found[kind], what=texts.outcomes[kind]))
        for kind in charts.ENDINGS
        if found[kind]
    ]
    without = sum(1 for day in days if day.expected and not day.runs)
    return [*told, (NO_RUN, texts.no_run_days.format(count=without))] if without else told


def _measure(
    title: str, found: Extent | None, say: Callable[[float], str], texts: Texts, *, first: str, last: str
) -> Measure:
    if found is None:
        return Measure(title, (), f"{title}: {texts.no_values}")
    newest, least, greatest = say(found.newest), say(found.least), say(found.greatest)
    return Measure(
        title,
        ((texts.newest, newest), (texts.least, least), (texts.greatest, greatest)),
        texts.extent_story.format(title=title, first=first, last=last, newest=newest, least=least, greatest=greatest),
    )
