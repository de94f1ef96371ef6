"""Markdown that shows texts of any kind as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def code(text: str) -> str:
    """A code span; a text with backticks in it needs longer ones around it (CommonMark 6.1)."""
    text = plain(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (max(map(len, re.findall("`+", text))) + 1)
    return f"{fence} {text} {fence}"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table; the columns `right` are numbers. A bar in a cell would end it, in a code span too (GFM 4.10)."""
    rule = ["---:" if column in right else "---" for column in range(len(heading))]
    body = [[plain(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *body))
