"""Markdown, as reports and reviews have it, in Slack's own dialect. Pure.

https://docs.slack.dev/messaging/formatting-message-text: `*bold*`, `<url|text>`, no headings, no tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TABLE_WIDTH = 76  # wider ones would be wrapped, and no longer be tables
_PAIR = 2
_LINE_LIMIT = 4_000  # more than a whole section takes

_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*$")
_ITEM = re.compile(r"(\s*)[-*+]\s+(.*)$")
_QUOTE = re.compile(r">\s?(.*)$")
_RULE = re.compile(r"(?:[-*_]\s*){3,}$")
_TABLE_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+$")
_CELL_END = re.compile(r"(?<!\\)\|")
_LETTER = re.compile(r"[^\W\d_]")
_INLINE = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)(?!`)"
    r"|\[(?P<text>[^\]]+)\]\((?P<url>https?://[^)\s]+)\)"
    r"|<(?P<auto>https?://[^>\s]+)>"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|(?<![*\w])\*(?P<soft>[^*\s](?:[^*]*[^*\s])?)\*(?![*\w])"
    r"|\\(?P<escaped>[!-/:-@\[-`{-~])"
)


@dataclass(frozen=True)
class Piece:
    """A paragraph, a list, a table or a block of code (`code`: to be shown as it is). Escaped, without empty lines."""

    text: str
    code: bool = False


def escape(text: str) -> str:
    """The three characters that Slack gives a meaning to everywhere, so that nothing in `text` can call anybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def pieces(markdown: str) -> list[Piece]:
    """`markdown` as pieces in mrkdwn, in order."""
    return list(_pieces([line[:_LINE_LIMIT] for line in markdown.splitlines()]))


def _pieces(lines: Sequence[str]) -> Iterator[Piece]:
    paragraph: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place].rstrip()
        end = _block_end(lines, place)
        if paragraph and (end > place + 1 or not line or _HEADING.match(line)):
            yield Piece("\n".join(paragraph))
            paragraph = []
        if end > place + 1:
            block = lines[place:end]
            yield _fenced(block) if line.startswith("```") else _table(block)
        elif heading := _HEADING.match(line):
            yield Piece(f"*{_inline(heading[1].replace('**', ''))}*")
        elif line and not _RULE.match(line):
            paragraph.append(_line(line))
        place = end
    if paragraph:
        yield Piece("\n".join(paragraph))


def _block_end(lines: Sequence[str], place: int) -> int:
    """The place after the block of code or table that begins at `place`; the next line where none does."""
    if lines[place].startswith("```"):
        closing = (at for at in range(place + 1, len(lines)) if lines[at].startswith("```"))
        return next(closing, len(lines) - 1) + 1
    if place + 1 < len(lines) and lines[place].startswith("|") and _TABLE_RULE.match(lines[place + 1].strip()):
        after = (at for at in range(place, len(lines)) if not lines[at].startswith("|"))
        return next(after, len(lines))
    return place + 1


def _fenced(block: Sequence[str]) -> Piece:
    body = block[1:-1] if len(block) > 1 and block[-1].startswith("```") else block[1:]
    return Piece(escape("\n".join(line for line in body if line.strip())).replace("```", "'''"), code=True)


def _line(line: str) -> str:
    if item := _ITEM.match(line):
        return f"{item[1]}• {_inline(item[2])}"
    if quote := _QUOTE.match(line):
        return f"> {_inline(quote[1])}"
    return _inline(line)


def _inline(text: str) -> str:
    parts, done = [], 0
    for found in _INLINE.finditer(text):
        parts += [escape(text[done : found.start()]), _formatted(found)]
        done = found.end()
    return "".join([*parts, escape(text[done:])])


def _formatted(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "code":
            return f"`{escape(found['code'].strip()).replace('`', chr(39))}`"
        case "url":
            # The bar would end the address, and there is no way to escape it but that of addresses.
            return f"<{escape(found['url']).replace('|', '%7C')}|{escape(found['text'])}>"
        case "auto":
            return f"<{escape(found['auto']).replace('|', '%7C')}>"
        case "bold":
            return f"*{_inline(found['bold'])}*"
        case "soft":
            return f"_{_inline(found['soft'])}_"
        case _:
            return escape(found["escaped"])


def _table(block: Sequence[str]) -> Piece:
    """As aligned text where that is narrow enough; as a list where it is not, or has two columns only."""
    heading, _, *rows = (_cells(row) for row in block)
    if len(heading) <= _PAIR:
        return Piece("\n".join(f"• {_bold(row[0])}: {_inline(' '.join(row[1:]))}" for row in rows))
    plain = [[_bare(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(map(_width, column)) for column in zip_longest(*plain, fillvalue="")]
    if sum(widths) + 2 * (len(widths) - 1) <= _TABLE_WIDTH:
        aligned = ("  ".join(_padded(cell, size) for cell, size in zip(row, widths, strict=False)) for row in plain)
        return Piece(escape("\n".join(line.rstrip() for line in aligned)), code=True)
    return Piece("\n".join(_listed(heading, row) for row in rows))


def _listed(heading: Sequence[str], row: Sequence[str]) -> str:
    """A row as an item. Its second cell speaks for itself when it is words; numbers need their labels."""
    said = [
        _inline(cell) if column == 1 and _LETTER.search(cell) else f"{_inline(label)}: {_inline(cell)}"
        for column, (label, cell) in enumerate(zip(heading, row, strict=False))
        if column and cell not in ("", "-")
    ]
    return f"• {_bold(row[0])}  {'; '.join(said)}".rstrip()


def _bold(cell: str) -> str:
    text = _inline(cell)
    return text if not text or "`" in text or "*" in text else f"*{text}*"


def _cells(row: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in _CELL_END.split(row.strip().strip("|"))]


def _bare(cell: str) -> str:
    """Without markup, for where none is shown."""
    return cell.replace("**", "").replace("`", "")


def _width(text: str) -> int:
    """In columns of a terminal: East Asian characters take two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
