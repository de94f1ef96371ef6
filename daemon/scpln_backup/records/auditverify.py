"""Checking the audit log: is every line as it was written, where it was written, and none missing?

What was done to a line shows in one of three ways, which together tell where: its own hash is wrong (altered), the
line after it does not follow on it (written anew, with a right hash), or it is not where its number says. What was done
to the chain's end shows by the note in the state folder.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from contextlib import ExitStack
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.records import auditfiles
from scpln_backup.records.auditlog import LOST, NOTHING_BEFORE
from scpln_backup.records.auditnote import held, read_note
from scpln_backup.records.auditscan import Odd, Own, Scanned, scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from scpln_backup.records.auditfiles import LogFile
    from scpln_backup.records.auditnote import Note

_PAIR = 2


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: in which file, at which of its lines, about which line of the chain, as far as that is known."""

    file: str | None = None
    line: int | None = None
    seq: int | None = None
    what: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`: the chain is whole from line `first_seq`, of `first_at`, to `last_seq`; what was before was rotated away.

    `notes` are what an auditor may want to know and is no fault: text of somebody else's, half lines of a full disk.
    """

    ok: bool
    checked: int
    first_seq: int | None
    last_seq: int | None
    first_at: datetime | None
    last_hash: str | None
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def verify(log: Path, state: Path) -> Verdict:
    """Check the log at `log`, with all that was rotated, against itself and the note in `state`. AuditError."""
    with ExitStack() as stack:
        with held(state, shared=True):  # so that the note and the files are of one moment
            note = read_note(state)
            found = stack.enter_context(auditfiles.opened(log))
        return check(found, note)


def check(found: Sequence[LogFile], note: Note | None) -> Verdict:
    """The same for open files and a note."""
    return _Check(scan(found, note.chain if note is not None else None), note).verdict()


class _Check:
    """One check: what was found so far."""

    def __init__(self, scanned: Scanned, note: Note | None) -> None:
        self._note = note
        self._odds = scanned.odds
        self._file_numbers = scanned.file_numbers
        self._problems = [Finding(what=problem.what, file=problem.file) for problem in scanned.unreadable]
        self._notes: list[Finding] = []
        for stranger in scanned.strangers:
            self._bad(stranger, "made up: it has this log's form, and the chain does not have it")
        self._changed_text = scanned.changed_text
        self._own = self._single(self._known(scanned.own))  # as they stand in the files
        self._chain = sorted(self._own, key=_seq)  # as they were written

    def verdict(self) -> Verdict:
        self._check_order()
        self._check_text()
        self._check_gaps()
        self._check_links()
        self._check_end()
        self._tell()
        first, last = (self._chain[0].line, self._chain[-1].line) if self._chain else (None, None)
        return Verdict(
            ok=not self._problems,
            checked=len(self._chain),
            first_seq=first.seq if first else None,
            last_seq=last.seq if last else None,
            first_at=first.at if first else None,
            last_hash=last.hash if last else None,
            problems=tuple(self._problems),
            notes=tuple(self._notes),
        )

    def _bad(self, where: Own, what: str) -> None:
        """One finding a line: the first one says it best."""
        found = Finding(what=what, file=where.file, line=where.number, seq=where.line.seq)
        if not any((known.file, known.line) == (found.file, found.line) for known in self._problems):
            self._problems.append(found)

    # Which lines are the chain's

    def _known(self, own: Iterable[Own]) -> list[Own]:
        """Without those behind the chain's end as it was noted."""
        if self._note is None:
            return list(own)
        pending = {self._note.seq + place: mark.hash for place, mark in enumerate(self._note.pending, 1)}
        kept = []
        for line in own:
            if line.line.seq <= self._note.seq or pending.get(line.line.seq) == line.line.hash:
                kept.append(line)
            else:
                self._bad(
                    line,
                    f"made up: the last line that was written is seq {self._note.seq} (or the state folder is an "
                    "older copy)",
                )
        return kept

    def _single(self, own: Sequence[Own]) -> list[Own]:
        """One line for each number: the one that the chain goes on with, else the one that stands in its place."""
        of_seq = defaultdict(list)
        for line in own:
            of_seq[line.line.seq].append(line)
        wanted = {line.line.prev for line in own} | set(self._note.hashes if self._note is not None else ())
        follows = {after.place for before, after in pairwise(own) if before.line.seq + 1 == after.line.seq}
        firsts = {line.place for line in {line.file: line for line in reversed(own)}.values()}

        def rank(line: Own) -> tuple[bool, ...]:
            out_of_place = line.place not in (firsts if line.line.file is not None else follows)
            return line.line.hash not in wanted, out_of_place

        for lines in of_seq.values():
            if len(lines) > 1:
                lines.sort(key=rank)
                for line in lines[1:]:
                    self._bad(line, f"made up: {lines[0].file} line {lines[0].number} is seq {line.line.seq}")
        return [line for line in own if of_seq[line.line.seq][0] is line]

    # What may be wrong

    def _check_order(self) -> None:
        wrong = [(here, there) for here, there in zip(self._own, self._chain, strict=True) if here is not there]
        if len(wrong) == _PAIR:
            for (here, _), (there, _) in (wrong, wrong[::-1]):
                self._bad(here, f"swapped with {there.file} line {there.number} (seq {there.line.seq})")
            return
        for line in _out_of_order(self._own):
            self._bad(line, "not in its place: moved from somewhere else")

    def _check_text(self) -> None:
        for own in self._changed_text:
            self._bad(own, "the other text before this line is not what it was when the line was written")

    def _check_links(self) -> None:
        for place, line in enumerate(self._chain):
            if line.line.seq == 1 and line.line.prev != NOTHING_BEFORE:
                self._bad(line, _REWRITTEN)
            if place == 0 or self._chain[place - 1].line.seq != line.line.seq - 1:
                continue
            before = self._chain[place - 1]
            if line.line.prev != before.line.hash:
                self._bad(before if self._is_vouched(place) else line, _REWRITTEN)

    def _is_vouched(self, place: int) -> bool:
        """Whether the line after it, or the note, says that a line is what was written."""
        line = self._chain[place].line
        if place + 1 < len(self._chain):
            after = self._chain[place + 1].line
            return after.seq != line.seq + 1 or after.prev == line.hash
        return self._note is None or line.hash in self._note.hashes or bool(self._note.pending)

    def _check_end(self) -> None:
        note = self._note
        if note is None:
            if self._chain:
                last = self._chain[-1]
                what = "the note of the chain's end is gone: nobody can tell whether lines after this one were removed"
                self._problems.append(Finding(what=what, file=last.file, line=last.number, seq=last.line.seq))
            return
        noted = {note.seq - back: digest for back, digest in enumerate(reversed(note.hashes))}
        for own in self._chain:
            if noted.get(own.line.seq, own.line.hash) != own.line.hash:
                self._bad(own, "written anew, with all that follow: it is not the line that was noted")
                break
        for own in self._own:
            if not own.ended and own.line.hash not in {mark.hash for mark in note.pending}:
                self._bad(own, "its newline was cut off")

    # What is missing

    def _check_gaps(self) -> None:
        gaps = self._gaps()
        taken: set[int] = set()
        for odd in self._odds:
            if odd.is_like_ours:
                self._judge(odd, gaps, taken)
        for low, high, before, after in gaps:
            for first, last in _runs(low, high, taken):
                self._problems.append(self._missing(first, last, before, after))

    def _gaps(self) -> list[_Gap]:
        """The numbers that no line has: first, last, the line before and the line after."""
        gaps: list[_Gap] = []
        if not self._chain:
            if self._note is not None and self._note.seq:
                gaps.append((1, self._note.seq, None, None))
            return gaps
        first, last = self._chain[0], self._chain[-1]
        above = (odd for odd in self._odds if odd.is_like_ours and odd.place < first.place)
        claimed = [seq for odd in above for seq in odd.claims if seq < first.line.seq]
        if claimed or (first.line.seq > 1 and first.line.file is None):
            gaps.append((min(claimed, default=first.line.seq - 1), first.line.seq - 1, None, first))
        for before, after in pairwise(self._chain):
            if after.line.seq > before.line.seq + 1:
                gaps.append((before.line.seq + 1, after.line.seq - 1, before, after))
        if self._note is not None and self._note.seq > last.line.seq:
            gaps.append((last.line.seq + 1, self._note.seq, last, None))
        return gaps

    def _judge(self, odd: Odd, gaps: Sequence[_Gap], taken: set[int]) -> None:
        """What a line that looks like ours and is not as ours are was, or is."""

        def is_free(seq: int) -> bool:
            return seq not in taken and any(low <= seq <= high for low, high, _, _ in gaps)

        place = bisect_left([own.place for own in self._own], odd.place)
        low = self._own[place - 1].line.seq + 1 if place else self._chain[0].line.seq - 1 if self._chain else 1
        was = [seq for seq in odd.claims if is_free(seq)] or [low] * is_free(low)
        if was:
            taken.update(was)
            cut = "" if odd.ended else " (its end is missing)"
            also = f", and with it seq {_range(was[1], was[-1])}" if len(was) > 1 else ""
            self._odd(self._problems, odd, f"altered: not the line that was written{cut}{also}", was[0])
        elif odd.is_vouched or (not odd.ended and self._note is not None and self._note.pending):
            self._odd(self._notes, odd, "half a line, by a full disk or a kill; it was written again")
        else:
            self._odd(self._problems, odd, "made up, or a line that was altered: it is none of the chain")

    @staticmethod
    def _odd(findings: list[Finding], odd: Odd, what: str, seq: int | None = None) -> None:
        findings.append(Finding(what=what, file=odd.file, line=odd.number, seq=seq))

    def _missing(self, first: int, last: int, before: Own | None, after: Own | None) -> Finding:
        seqs = f"missing: seq {_range(first, last)}"
        instead = self._instead(before, after)
        if instead is not None and before is not None:
            what = f"{seqs}; other text stands where it was"
            return Finding(what=what, file=instead.file, line=instead.number, seq=first)
        if after is None:
            if before is None:
                return Finding(what=f"{seqs}; there is no line of the log left", seq=first)
            what = f"{seqs}: removed from the end, after this line"
            return Finding(what=what, file=before.file, line=before.number, seq=first)
        if before is None and after.line.file is None:
            what = f"{seqs}, and maybe more: removed from the beginning of the file, before this line"
        elif before is None or before.file == after.file:
            what = f"{seqs}: removed before this line"
        else:
            what = f"{seqs}: {self._between(before, after)}"
        return Finding(what=what, file=after.file, line=after.number, seq=first)

    def _between(self, before: Own, after: Own) -> str:
        """Which part of which files is missing between the last line of one and the first one of another."""
        if after.line.file is None:
            return f"removed from the beginning of {after.file}, or the end of {before.file}"
        number = self._file_numbers.get(before.file)
        absent = after.line.file - number - 1 if number is not None else 0
        if absent > 0:
            what = "a rotated file is missing" if absent == 1 else f"{absent} rotated files are missing"
            return f"{what} between {before.file} and {after.file}"
        return f"removed from the end of {before.file}"

    def _instead(self, before: Own | None, after: Own | None) -> Odd | None:
        for odd in self._odds:
            behind = before is None or odd.place > before.place
            ahead = after is None or odd.place < after.place
            if behind and ahead and not odd.is_like_ours and not odd.is_vouched and not odd.is_other_chain:
                return odd
        return None

    # What is no fault

    def _tell(self) -> None:
        for odd in self._odds:
            if odd.is_like_ours:
                continue
            lines = "1 line of" if odd.lines == 1 else f"{odd.lines} lines of"
            whose = "another installation" if odd.is_other_chain else "other text"
            vouched = "unchanged since" if odd.is_vouched else "no later line vouches for it"
            what = f"{lines} {whose}, {odd.bytes} bytes; {vouched}"
            self._notes.append(Finding(what=what, file=odd.file, line=odd.number))
        for own in self._chain:
            if own.line.head == LOST:
                what = "the state folder had been lost: lines before this one may have been removed unnoticed"
                self._notes.append(Finding(what=what, file=own.file, line=own.number, seq=own.line.seq))
        if self._note is not None and self._note.pending:
            first, last = self._note.seq + 1, self._note.seq + len(self._note.pending)
            what = f"seq {_range(first, last)} was being written when the program was killed; the next line settles it"
            self._notes.append(Finding(what=what, seq=first))


_REWRITTEN = "written anew, and maybe lines before it: the chain does not go on with it"
if TYPE_CHECKING:
    _Gap = tuple[int, int, Own | None, Own | None]


def _seq(own: Own) -> int:
    return own.line.seq


def _out_of_order(own: Sequence[Own]) -> list[Own]:
    """The fewest lines without which the others are in order: all but a longest increasing subsequence."""
    ends: list[int] = []  # of the best sequence of each length: its last seq
    last_of: list[int] = []  # and that line's index
    before: list[int] = []
    for index, line in enumerate(own):
        length = bisect_left(ends, line.line.seq)
        before.append(last_of[length - 1] if length else -1)
        ends[length:] = [line.line.seq, *ends[length + 1 :]]
        last_of[length:] = [index, *last_of[length + 1 :]]
    in_order = set()
    index = last_of[-1] if last_of else -1
    while index >= 0:
        in_order.add(index)
        index = before[index]
    return [line for index, line in enumerate(own) if index not in in_order]


def _runs(low: int, high: int, taken: set[int]) -> list[tuple[int, int]]:
    """The stretches of `low` to `high` that are not taken."""
    borders = [low - 1, *sorted(seq for seq in taken if low <= seq <= high), high + 1]
    return [(a + 1, b - 1) for a, b in pairwise(borders) if b - a > 1]


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
