"""Reading the audit log to check it: which lines are the chain's, which are somebody else's, which are neither."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

from scpln_backup.errors import AuditError
from scpln_backup.records.auditlog import Line, parse
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scpln_backup.records.auditfiles import LogFile, Piece

_CLAIM = re.compile(rb'\{"seq":(\d{1,15}),')
# How a line of ours begins or ends, one changed byte left aside.
_LIKE_OURS = re.compile(rb'\A\{"seq"|\A.{8}\d*,"at":"|"prev":"[0-9a-f]{64}"|"hash":"[0-9a-f]{64}"')


@dataclass(kw_only=True)
class Part:
    """A part of a file: from line `number` on, the bytes `start` to `end`. `place` orders the parts of all files."""

    file: str
    number: int
    start: int
    end: int
    ended: bool
    place: tuple[int, int] = (0, 0)


@dataclass(kw_only=True)
class Own(Part):
    """A line that is as it was written."""

    line: Line


@dataclass(kw_only=True)
class Odd(Part):
    """Text that is no sound line of the chain: `lines` of it.

    `claims` are the numbers that it gives itself. `is_vouched`: a line after it says that it stood there as it is.
    """

    lines: int = 1
    is_like_ours: bool = False
    is_other_chain: bool = False
    is_vouched: bool = False
    claims: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Unreadable:
    file: str
    what: str


@dataclass
class Scanned:
    """All that is in the files, in the order of the chain's files.

    `strangers` are sound lines that a later one says are none of the chain; `changed_text` are lines that say what text
    stood before them, where it does not any more. `file_numbers` are the numbers that the files gave themselves.
    """

    own: list[Own] = field(default_factory=list)
    odds: list[Odd] = field(default_factory=list)
    strangers: list[Own] = field(default_factory=list)
    changed_text: list[Own] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    file_numbers: dict[str, int] = field(default_factory=dict)


@dataclass
class _Content:
    file: LogFile
    own: list[Own] = field(default_factory=list)
    odds: list[Odd] = field(default_factory=list)

    def key(self) -> int:
        """Files stand in the order of their lines' numbers; a few strange ones change nothing about that."""
        seqs = [own.line.seq for own in self.own] or [seq for odd in self.odds for seq in odd.claims]
        return median_low(seqs) if seqs else -1

    def put(self, index: int) -> None:
        for own in self.own:
            own.place = (index, own.number)
        for odd in self.odds:
            odd.place = (index, odd.number)


def scan(found: Sequence[LogFile], chain: str | None) -> Scanned:
    """Read all files. `chain` None: the chain is the one that the newest line is of."""
    scanned = Scanned()
    contents = [_read(file, scanned) for file in found]
    if chain is None:
        newest = max((own.line for content in contents for own in content.own), key=_age, default=None)
        chain = newest.chain if newest is not None else ""
    for content in contents:
        _part(content, chain)
        _vouch(content, scanned)
    for index, content in enumerate(sorted(contents, key=_Content.key)):
        content.put(index)
        scanned.own += content.own
        scanned.odds += content.odds
        for own in content.own:
            if own.line.file is not None:
                scanned.file_numbers[own.file] = own.line.file
    return scanned


def _age(line: Line) -> float:
    return line.at.timestamp()


def _read(file: LogFile, scanned: Scanned) -> _Content:
    content = _Content(file)
    try:
        for piece in file.pieces():
            line = parse(piece.raw)
            if line is None:
                _add_odd(content, piece)
            else:
                content.own.append(_own(file.name, piece, line))
    except AuditError as error:
        scanned.unreadable.append(Unreadable(file.name, one_line(error)))
    return content


def _own(file: str, piece: Piece, line: Line) -> Own:
    return Own(file=file, number=piece.number, start=piece.start, end=piece.end, ended=piece.ended, line=line)


def _add_odd(content: _Content, piece: Piece) -> None:
    odd = Odd(
        file=content.file.name,
        number=piece.number,
        start=piece.start,
        end=piece.end,
        ended=piece.ended,
        claims=tuple(int(claim) for claim in _CLAIM.findall(piece.raw)),
    )
    odd.is_like_ours = bool(odd.claims) or _LIKE_OURS.search(piece.raw) is not None
    last = content.odds[-1] if content.odds else None
    if last is not None and last.end == odd.start and not odd.is_like_ours and not last.is_like_ours:
        last.end, last.ended, last.lines = odd.end, odd.ended, last.lines + 1
    else:
        content.odds.append(odd)


def _part(content: _Content, chain: str) -> None:
    """Put the lines of other chains among the odd ones."""
    for own in content.own:
        if own.line.chain != chain:
            odd = Odd(file=own.file, number=own.number, start=own.start, end=own.end, ended=own.ended)
            odd.is_other_chain = True
            content.odds.append(odd)
    content.own = [own for own in content.own if own.line.chain == chain]
    content.odds.sort(key=lambda odd: odd.start)


def _vouch(content: _Content, scanned: Scanned) -> None:
    """Find the text that lines say stood before them. What stands in it is none of the chain, whatever it looks like.

    It begins where a line of the chain ends, or the file begins. From the last line backwards: a later one knows more.
    """
    strangers: set[int] = set()
    for index in range(len(content.own) - 1, -1, -1):
        own = content.own[index]
        length = own.line.foreign_bytes
        if index in strangers or not length:
            continue
        starts = [0, *(before.end for before in content.own[:index])]
        begins = (start for start in reversed(starts) if start + length <= own.start)
        start = next(
            (start for start in begins if _digest(content.file, start, length) == own.line.foreign_sha256), None
        )
        if start is None:
            scanned.changed_text.append(own)
            continue
        end = start + length
        strangers |= {place for place, other in enumerate(content.own) if start <= other.start < end}
        for odd in content.odds:
            odd.is_vouched = odd.is_vouched or start <= odd.start < end
    scanned.strangers += [content.own[index] for index in sorted(strangers)]
    content.own = [own for index, own in enumerate(content.own) if index not in strangers]


def _digest(file: LogFile, start: int, length: int) -> str:
    digest = hashlib.sha256()
    for block in file.read(start, length):
        digest.update(block)
    return digest.hexdigest()
