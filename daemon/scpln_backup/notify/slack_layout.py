"""A message as Slack shows it: blocks within their limits, and the same as plain text. Pure.

Limits: https://docs.slack.dev/reference/block-kit/blocks. Beside those of each block, Slack refuses messages whose
blocks are longer than about 12,000 characters in all (`msg_blocks_too_long`), which it documents nowhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scpln_backup.notify.mrkdwn import Piece, escape, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEADER_LIMIT = 150
SECTION_LIMIT = 3_000
FIELDS_LIMIT = 10
FIELD_LIMIT = 2_000
TEXT_LIMIT = 3_900  # Slack asks for at most 4,000
BLOCKS_LIMIT = 50
ALL_BLOCKS_LIMIT = 9_000  # in characters of their JSON

_SENTENCE_LIMIT = 1_000
_FACT_LIMIT = 400
_FENCE = "```"
_ADDRESS = re.compile(r"https?://[^\s|<>]+$")
_CUT_ENTITY = re.compile(r"&[a-z]{0,3}$")

Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is to be shown, unescaped; commands in `sentences` and `facts` stand between backticks.

    `footer` is small print, `shortened` what is said where `document` (Markdown) did not fit.
    """

    title: str
    sentences: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    listing: str | None = None
    document: str | None = None
    footer: str
    shortened: str


@dataclass(frozen=True)
class Content:
    """`text` says it all by itself: notifications show it, and whatever cannot show blocks."""

    text: str
    blocks: tuple[Mapping[str, Any], ...]


def compose(layout: Layout) -> Content:
    return Content(_text(layout), tuple(_blocks(layout)))


def _text(layout: Layout) -> str:
    lines = [layout.title, *(_cut(sentence, _SENTENCE_LIMIT) for sentence in layout.sentences)]
    lines += [f"{label}: {_cut(value, _FACT_LIMIT)}" for label, value in layout.facts]
    lines += [part for part in (layout.listing, layout.document) if part]
    return _cut(escape("\n".join(lines)), TEXT_LIMIT)


def _blocks(layout: Layout) -> list[Block]:
    """The header first, the small print last; between them what there is room for, the document as the last."""
    header = {"type": "header", "text": {"type": "plain_text", "text": _cut(layout.title, HEADER_LIMIT), "emoji": True}}
    footer = _context(layout.footer)
    note = _context(layout.shortened)
    room = ALL_BLOCKS_LIMIT - sum(map(_size, (header, footer, note)))
    body: list[Block] = []
    for block in _body(layout):
        room -= _size(block)
        if room < 0 or len(body) == BLOCKS_LIMIT - 3:
            return [header, *body, note, footer]
        body.append(block)
    return [header, *body, footer]


def _body(layout: Layout) -> Iterator[Block]:
    sentences = [Piece(escape(_cut(sentence, _SENTENCE_LIMIT))) for sentence in layout.sentences]
    yield from map(_section, _packed(sentences, "\n"))
    fields = [f"*{escape(label)}*\n{_fact(_cut(value, _FACT_LIMIT))}" for label, value in layout.facts]
    for first in range(0, len(fields), FIELDS_LIMIT):
        few = fields[first : first + FIELDS_LIMIT]
        yield {"type": "section", "fields": [_mrkdwn(_cut(text, FIELD_LIMIT)) for text in few]}
    if layout.listing:
        yield from map(_section, _packed([Piece(escape(layout.listing), code=True)], "\n"))
    if layout.document:
        yield {"type": "divider"}
        yield from map(_section, _packed(pieces(layout.document), "\n\n"))


def _fact(value: str) -> str:
    return f"<{escape(value)}>" if _ADDRESS.match(value) else escape(value)


def _packed(what: Sequence[Piece], gap: str) -> Iterator[str]:
    """The pieces in as few texts as possible that a section takes; what is too long by itself is split at its lines."""
    current = ""
    for piece in what:
        for part in _parts(piece):
            if current and _length(current + gap + part) > SECTION_LIMIT:
                yield current
                current = ""
            current = current + gap + part if current else part
    if current:
        yield current


def _parts(piece: Piece) -> Iterator[str]:
    wrapping = f"{_FENCE}\n{{}}\n{_FENCE}" if piece.code else "{}"
    limit = SECTION_LIMIT - len(wrapping)
    lines: list[str] = []
    for line in piece.text.splitlines():
        short = _cut(line, limit)
        if lines and _length("\n".join([*lines, short])) > limit:
            yield wrapping.replace("{}", "\n".join(lines))
            lines = []
        lines.append(short)
    if any(line.strip() for line in lines):
        yield wrapping.replace("{}", "\n".join(lines))


def _cut(text: str, limit: int) -> str:
    """At most `limit` long, not in the middle of an escaped character; what UTF-8 has no bytes for is replaced."""
    sound = text.encode(errors="replace").decode()
    if _length(sound) <= limit:
        return sound
    short = sound[: limit - 1]
    while _length(short) > limit - 1:
        short = short[:-1]
    return _CUT_ENTITY.sub("", short) + "…"


def _length(text: str) -> int:
    """As a language with UTF-16 strings counts, which is never less than characters."""
    return len(text.encode("utf-16-le", errors="replace")) // 2


def _size(block: Block) -> int:
    return _length(json.dumps(block, ensure_ascii=False)) + 1


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(_cut(escape(text), FIELD_LIMIT))]}


def _mrkdwn(text: str) -> Block:
    # verbatim: only what is marked as a link or a mention is one, so nothing in a message can call anybody.
    return {"type": "mrkdwn", "text": text, "verbatim": True}
