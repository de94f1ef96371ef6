"""The page of results."""

from __future__ import annotations

import platform
import sqlite3
import statistics
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contenders import EVERYBODY, SEED
from floors import cores
from goals import MB, goals
from measure import middle
from rounds import CHANGED, FIRST, RESTORE, UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from floors import Floors
    from idle import Idle
    from rounds import Felt, Samples, Size

    from support.writer import Report

MODES = {"delete": "rollback-journal mode", "wal": "WAL mode"}
_REACHED = {True: "yes", False: "**no**", None: "?"}

_HEAD = """\
# Benchmarks

Made by `{command}` on {date}, and made anew by it with your machine's figures.

**Machine.** {cores} cores, Linux {kernel}, Python {python}; SQLite {sqlite} in the program, {cli} on the command line.
{busy}

**What is measured.** The application's sample database, grown; it compresses about 9 : 1 with `gzip -6`.  First line of
each table: the procedure that scpln-backup replaces (`sqlite3 .backup`, `gzip`).  Wall clock; processor time of all
processes; the most memory that all processes had resident at once, and how much of it was no page of a file (shared
libraries count once for each process, and so does the copy that scpln-backup maps into memory while it is checked: pages
that the kernel takes back when it needs them).  Medians of {repeat} runs in turn, in alternating order
after a warm-up (one run of the presets `small`, of the second and the third night, and of more than a GiB), with the
database in the page cache, and the rest of the memory full of other files' pages, as it is on a host that has run for a
while.  Everybody does what its own documentation says; tools that store files get a `.backup`.

**Proven** means that within that time the copy passed `integrity_check`, was fingerprinted, and the artifact was synced
to disk, read back, decompressed and compared with the copy.  The others do none of this: they stop when they have
written their last byte, synced or not.

"""

_REPEAT = """\
## How to repeat it

    make bench                                                 64 MiB, some ten minutes, printed
    make bench ARGS="--mib 256 1024 4096 --limit 10 --write"   this page, an hour
    make bench ARGS="--mib 1024 --only balanced seed"          some of the contenders (words of their names; `seed`)
    make bench ARGS="--folder /srv/scratch"                    on the disk to be measured

On a quiet machine: the line under the first paragraph says how many cores were busy with something else.  It needs six
times the largest size on the disk.  `pigz`, `zstd`, `restic` and `borg` are Debian's packages (packaging/apt-bench.txt);
litestream comes from PyPI into .cache/bench.  What is missing is left out, and said to be.

"""

_TAIL = """\
## What this does not show

- A cold page cache or a slow disk: there the reading decides, and all are alike.  `.backup` reads the database once;
  scpln-backup reads it twice in rollback-journal mode, the second time under the lock that a writer waits for.
- Other cores: compressing and proving use all of them, `.backup` one.
- Other data: numbers that compress less take longer to compress, for everybody.
- Variation: medians of few runs.  Differences of a tenth mean nothing.
- What the tools are made for besides: restic and borg share what nights have in common and can encrypt (restic always
  does here, borg does not), litestream replicates all the time and keeps a second copy of the changes beside the
  database; `-once` is what it offers for a night.
- The rows that change in the second night lie all over the tables.  Rows added at their ends touch fewer pages.
- The space of the uncompressed copy that all but litestream need while they work.
- The writer is a small one (a transaction every few milliseconds, five-second busy timeout, commits synced).  Its waits
  include those for the disk, which the backup keeps busy.
- In WAL mode about one transaction in a hundred checkpoints the WAL and waits for the disk to sync the database.  The
  99th percentile is where these begin: without any backup it goes up and down by a half.
"""


def page(arguments: str, repeat: int, sizes: Sequence[Size], idle: Mapping[str, Idle], missing: Sequence[str]) -> str:
    """`missing`: lines about what could not be measured."""
    parts = [_head(arguments, repeat, sizes), _goals(sizes, idle)]
    for size in sizes:
        parts += _size(size)
    if len(sizes) > 1:
        parts.append(_growth(sizes))
    parts += [_idle(idle), _REPEAT, _TAIL, "".join(f"- {line}\n" for line in missing)]
    return "".join(parts)


def _head(arguments: str, repeat: int, sizes: Sequence[Size]) -> str:
    version = subprocess.run(["sqlite3", "--version"], check=False, capture_output=True, text=True).stdout.split()
    others = statistics.median(
        sample.others for size in sizes for night in size.nights.values() for each in night.values() for sample in each
    )
    busy = f"Meanwhile {others:.1f} cores were busy with something else."
    if others > 0.2:
        busy += (
            "  **That lengthens the wall clock most for those who use all cores: measure again on a quiet machine.**"
        )
    return _HEAD.format(
        command=f'make bench ARGS="{arguments}"' if arguments else "make bench",
        date=datetime.now(UTC).date().isoformat(),
        cores=cores(),
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        cli=version[0] if version else "none",
        repeat=repeat,
        busy=busy,
    )


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    lines = [f"## {title}", "", f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n\n"


def _goals(sizes: Sequence[Size], idle: Mapping[str, Idle]) -> str:
    heads = ("", "at least", "found", "reached", "floor")
    rows = [(g.what, g.least, g.found, _REACHED[g.reached], g.bound) for g in goals(sizes, idle)]
    return _table("To reach", heads, rows) + (
        "The floor is what the parts that nobody can leave out take on this machine (below), perfectly shared between\n"
        "its cores and with nothing to start.\n\n"
    )


def _size(size: Size) -> list[str]:
    parts = [_first_night(size)]
    if CHANGED in size.nights:
        parts.append(_more_nights(size))
    parts.append(_restores(size))
    if size.floors is not None:
        parts.append(_floors(size.mib, size.floors))
    parts += [_beside(size.mib, mode, felt) for mode, felt in size.beside.items()]
    return parts


def _first_night(size: Size) -> str:
    seed = _seed_seconds(size.nights[FIRST])
    heads = ("", "wall s", "times as fast", "processor s", "memory MB", "anonymous MB", "stored MB", "proven")
    rows = []
    for contender, samples in size.nights[FIRST].items():
        sample = middle(samples)
        if sample.problem:
            rows.append((contender.name, sample.problem, *[""] * 6))
            continue
        memory = (f"{sample.memory / MB:.0f}", f"{sample.anonymous / MB:.0f}")
        proven = "yes" if contender.proven else "no"
        times = (f"{sample.wall:.2f}", _times(seed, sample.wall), f"{sample.cpu:.2f}")
        rows.append((contender.name, *times, *memory, f"{sample.stored / MB:.1f}", proven))
    return _table(f"{size.mib} MiB: the first night", heads, rows)


def _more_nights(size: Size) -> str:
    heads = ("", "1 % of the rows changed: wall s", "stored MB", "nothing changed: wall s", "stored MB")
    rows = []
    for contender in size.nights[CHANGED]:
        cells = [contender.name]
        for kind in (CHANGED, UNCHANGED):
            sample = middle(size.nights[kind][contender])
            cells += [sample.problem, ""] if sample.problem else [f"{sample.wall:.2f}", f"{sample.stored / MB:.1f}"]
        rows.append(cells)
    return _table(f"{size.mib} MiB: the second and the third night", heads, rows)


def _restores(size: Size) -> str:
    seed = _seed_seconds(size.nights[RESTORE])
    heads = ("", "wall s", "times as fast", "processor s", "memory MB", "anonymous MB")
    rows = []
    for contender, samples in size.nights[RESTORE].items():
        sample = middle(samples)
        if sample.problem:
            rows.append((contender.name, sample.problem, *[""] * 4))
            continue
        memory = (f"{sample.memory / MB:.0f}", f"{sample.anonymous / MB:.0f}")
        times = (f"{sample.wall:.2f}", _times(seed, sample.wall), f"{sample.cpu:.2f}")
        rows.append((contender.name, *times, *memory))
    text = (
        "All end with `integrity_check`; scpln-backup also compares sha256 and fingerprint with those of the night, and\n"
        "syncs the file to disk.\n"
    )
    if size.replaced:
        whole, down = (statistics.median(seconds) for seconds in zip(*size.replaced, strict=True))
        text += (
            f"Its whole `restore`, which replaces the live database and counts what is lost, takes {whole:.2f} s.  For\n"
            f"{down:.2f} s of it the application is stopped (besides its own stopping and starting).\n"
        )
    return _table(f"{size.mib} MiB: restore to a checked database", heads, rows) + text + "\n"


def _floors(mib: int, floors: Floors) -> str:
    rows = [
        ("reading the file", floors.read),
        ("copying it", floors.copy),
        ("syncing the copy to disk", floors.sync),
        ("`integrity_check`, mapped into memory", floors.check),
        *((f"compressing, `{preset}`", seconds) for preset, seconds in floors.encode.items()),
        ("inflating", floors.inflate),
        ("sha256", floors.sha256),
    ]
    cells = [(name, f"{seconds:.2f}") for name, seconds in rows]
    return _table(f"{mib} MiB: the parts by themselves, on one core", ("", "wall s"), cells)


def _beside(mib: int, mode: str, felt: Felt) -> str:
    heads = ("", "backup", "wall s", "transactions", "p50 ms", "p99 ms", "longest ms", "errors")
    rows = [("no backup", "", "", *_felt(felt.alone))]
    for contender, samples in felt.samples.items():
        good = [sample.wall for sample in samples if not sample.problem]
        problems = sorted({sample.problem for sample in samples if sample.problem})
        told = f"{len(good)} of {len(samples)} done" + "".join(f"; {problem}" for problem in problems)
        wall = f"{statistics.median(good):.2f}" if good else ""
        rows.append((contender.name, told, wall, *_felt(felt.reports[contender])))
    return _table(f"{mib} MiB, {MODES[mode]}: beside a writer", heads, rows)


def _growth(sizes: Sequence[Size]) -> str:
    heads = ["", *(f"{size.mib} MiB: s" for size in sizes), *(f"{size.mib} MiB: restore s" for size in sizes)]
    heads += [f"{size.mib} MiB: anonymous MB" for size in sizes]
    rows = []
    for contender in EVERYBODY:
        found = [
            [middle(each) if (each := size.nights[kind].get(contender)) else None for size in sizes]
            for kind in (FIRST, RESTORE)
        ]
        if not any(sample is not None for sample in found[0]):
            continue
        cells = [f"{s.wall:.2f}" if s is not None and not s.problem else "-" for kind in found for s in kind]
        cells += [f"{s.anonymous / MB:.0f}" if s is not None and not s.problem else "-" for s in found[0]]
        rows.append((contender.name, *cells))
    return _table("How the costs grow", heads, rows)


def _idle(idle: Mapping[str, Idle]) -> str:
    heads = ("", "ready after s", "resident MB", "anonymous MB")
    rows = [(n, f"{i.ready:.2f}", f"{i.memory / MB:.0f}", f"{i.anonymous / MB:.0f}") for n, i in idle.items()]
    return _table("A daemon with nothing to do", heads, rows) + (
        "scpln-backup is ready when it tells systemd so, litestream when its first file has come to the replica.\n\n"
    )


def _seed_seconds(night: Samples) -> float | None:
    sample = middle(night[SEED]) if SEED in night else None
    return sample.wall if sample is not None and not sample.problem else None


def _times(seed: float | None, wall: float) -> str:
    return f"{seed / wall:.1f}" if seed is not None else ""


def _felt(report: Report) -> tuple[str, ...]:
    p50, p99, longest = (report.percentile(share) * 1000 for share in (0.5, 0.99, 1))
    return f"{len(report.seconds)}", f"{p50:.1f}", f"{p99:.1f}", f"{longest:.0f}", f"{len(report.errors)}"
