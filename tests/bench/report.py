"""The page of results."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contenders import SEED
from measure import MB, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

    from support.writer import Report

MODES = {"delete": "rollback-journal mode", "wal": "WAL mode"}

_HEAD = """\
# Benchmarks

Made by `make bench ARGS="{arguments}"` on {date}; run it to make this page anew with your machine's figures.

**Machine.** {cores} cores, Linux {kernel}, Python {python}; SQLite {sqlite} in the program, {cli} on the command line.

**What is measured.** The application's sample database, grown; it compresses about 9 : 1 with `gzip -6`.  First line of
each table: the procedure that scpln-backup replaces (`sqlite3 .backup`, `gzip -6`).  Wall clock; processor time of all
processes; the most memory that all processes had resident at once (shared libraries count once for each process).
Medians of {repeat} runs, in alternating order after a warm-up, with the database in the page cache.

**Proven** means that within that time the copy passed `integrity_check`, was fingerprinted, and the artifact was synced
to disk, read back, decompressed and compared with the copy.  The others do none of this: they stop when the compressor
has written its last byte, synced or not.

"""

_TAIL = """\
## What this does not show

- A cold page cache or a slow disk: there the reading decides, and all are alike.  `.backup` reads the database once;
  scpln-backup reads it twice in rollback-journal mode, the second time under the lock that a writer waits for.
- Other cores: compressing and proving use all of them, `.backup` and the snapshot's first pass one.
- Other data: numbers that compress less take longer to compress, for everybody.
- Variation: medians of few runs on a shared machine.  Differences of a tenth mean nothing.
- Memory under pressure: the page cache is not counted for anybody.
- Restores, and the space of the uncompressed copy that all of them need while they work.
- The writer is a small one (a transaction every few milliseconds, five-second busy timeout, commits synced).  Its waits
  include those for the disk, which the backup keeps busy.
"""


def head(arguments: str, repeat: int) -> str:
    version = subprocess.run(["sqlite3", "--version"], check=False, capture_output=True, text=True).stdout.split()
    return _HEAD.format(
        arguments=arguments,
        date=datetime.now(UTC).date().isoformat(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        cli=version[0] if version else "none",
        repeat=repeat,
    )


def tail(missing: list[str]) -> str:
    absent = "".join(f"- {line}\n" for line in missing)
    return _TAIL + absent


def idle_table(mib: int, mode: str, results: Mapping[Contender, Sample]) -> str:
    lines = [
        f"## {mib} MiB, {MODES[mode]}, nobody writing",
        "",
        "| | wall s | times as fast | processor s | memory MB | stored MB | proven |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    seed = results.get(SEED)
    for contender, sample in results.items():
        times = f"{seed.wall / sample.wall:.1f}" if seed is not None else ""
        numbers = (
            f"| {contender.name} | {sample.wall:.2f} | {times} | {sample.cpu:.2f} | {sample.memory / MB:.0f} "
            f"| {sample.stored / MB:.1f} | {'yes' if contender.proven else 'no'} |"
        )
        lines.append(f"| {contender.name} | {sample.problem} | | | | | |" if sample.problem else numbers)
    others = statistics.median(sample.others for sample in results.values())
    lines += ["", f"Meanwhile {others:.1f} of {len(os.sched_getaffinity(0))} cores were busy with something else."]
    return "\n".join(lines) + "\n\n"


def writer_table(mib: int, mode: str, alone: Report, results: Mapping[Contender, tuple[list[Sample], Report]]) -> str:
    lines = [
        f"## {mib} MiB, {MODES[mode]}, beside a writer",
        "",
        "| | backup | wall s | transactions | p50 ms | p99 ms | longest ms | errors |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        f"| no backup | | | {_felt(alone)} |",
    ]
    for contender, (samples, report) in results.items():
        good = [sample.wall for sample in samples if not sample.problem]
        problems = sorted({sample.problem for sample in samples if sample.problem})
        told = f"{len(good)} of {len(samples)} done" + "".join(f"; {problem}" for problem in problems)
        wall = f"{sorted(good)[len(good) // 2]:.2f}" if good else ""
        lines.append(f"| {contender.name} | {told} | {wall} | {_felt(report)} |")
    return "\n".join(lines) + "\n\n"


def _felt(report: Report) -> str:
    p50, p99, longest = (report.percentile(share) * 1000 for share in (0.5, 0.99, 1))
    return f"{len(report.seconds)} | {p50:.1f} | {p99:.1f} | {longest:.0f} | {len(report.errors)}"
