"""What people read of the doctor's findings: a line each, with what to do under those that are not well."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from scpln_backup.operations.doctor.finding import Grade

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scpln_backup.operations.doctor.finding import Finding

_STYLE = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.CRITICAL: "bold red"}
_LEVEL_WIDTH = 9
_NAME_WIDTH = 19
_MARGIN = 2
_NARROWEST = 30
_PIPE_WIDTH = 10_000  # where nobody's terminal sets a width, a line is a line


def findings(made: Iterable[Finding]) -> list[Finding]:
    """Print each as it comes, for some take seconds; return them all."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=True)
    seen: list[Finding] = []
    for finding in made:
        if not seen or seen[-1].area != finding.area:
            console.print(Text(finding.area, style="bold"))
        seen.append(finding)
        for line in _lines(finding, console):
            console.print(line)
    click.echo(_sum(seen))
    return seen


def _lines(finding: Finding, console: Console) -> Iterator[Text]:
    """Text, not markup: a detail may hold brackets, such as those of [web] listen."""
    head = Text.assemble(
        " " * _MARGIN,
        (f"{finding.level:<{_LEVEL_WIDTH}}", _STYLE[finding.level]),
        f"{finding.check:<{_NAME_WIDTH}}",
    )
    indent = Text(" " * len(head))
    width = max(_NARROWEST, console.width - len(head))
    body = Text(finding.detail).wrap(console, width)
    if finding.advice is not None:
        body.extend(Text(f"→ {finding.advice}", style="bold").wrap(console, width))
    for number, text in enumerate(body):
        text.rstrip()
        yield (head if number == 0 else indent) + text


def _sum(seen: list[Finding]) -> str:
    counts = {grade: sum(finding.level is grade for finding in seen) for grade in Grade}
    parts = [f"{counts[grade]} {grade}" for grade in reversed(Grade) if counts[grade]]
    return f"{len(seen)} checks: {', '.join(parts)}"
