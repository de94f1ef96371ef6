"""Time, processor time and memory of a command and everything it starts."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from contenders import Contender, environment

from support.writer import Report, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1_000_000
_SAMPLE_SECONDS = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """`memory` is the most that all processes together had resident at a moment, looked at every 20 ms.

    `problem` is None when the command succeeded; `stored` are the bytes of the artifact.  `others` is how many
    processor cores were busy with something else meanwhile.
    """

    wall: float
    cpu: float
    memory: int
    stored: int
    others: float
    problem: str | None


def middle(samples: list[Sample]) -> Sample:
    """The medians, each of its own."""
    median: Callable[[list[float]], float] = statistics.median
    return Sample(
        median([s.wall for s in samples]),
        median([s.cpu for s in samples]),
        int(median([s.memory for s in samples])),
        int(median([s.stored for s in samples])),
        median([s.others for s in samples]),
        next((s.problem for s in samples if s.problem), None),
    )


def measure(contender: Contender, database: Path, folder: Path, limit: float) -> Sample:
    """One backup into the new `folder`, given up after `limit` seconds."""
    folder.mkdir()
    command = contender.command(database, folder)
    os.sync()  # nobody pays for what the one before left to be written
    log = folder / "stderr"
    with log.open("wb") as errors:
        began, busy = time.monotonic(), _busy_seconds()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment(), start_new_session=True
        )
        memory, in_time = _watch(process.pid, began + limit)
        wall = time.monotonic() - began
        if not in_time:
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    problem = None
    if not in_time:
        problem = f"not done after {limit:g} s"
    elif process.returncode:
        problem = log.read_text().strip().splitlines()[-1]
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, _busy_seconds() - busy - cpu) / wall
    return Sample(wall, cpu, memory, _stored(folder), others, problem)


def measure_beside_a_writer(contender: Contender, database: Path, folder: Path, limit: float) -> tuple[Sample, Report]:
    with Writer(database) as writer:
        sample = measure(contender, database, folder, limit)
        return sample, writer.stop()


def writer_alone(database: Path, seconds: float) -> Report:
    with Writer(database) as writer:
        time.sleep(seconds)
        return writer.stop()


def _watch(pid: int, deadline: float) -> tuple[int, bool]:
    """Wait for the end of a process; return the most memory seen, and whether it ended before the deadline."""
    memory = 0
    descriptor = os.pidfd_open(pid)
    try:
        while time.monotonic() < deadline:
            memory = max(memory, sum(map(_resident, _tree(pid))))
            if select.select([descriptor], [], [], _SAMPLE_SECONDS)[0]:
                return memory, True
    finally:
        os.close(descriptor)
    return memory, False


def _tree(pid: int) -> list[int]:
    found = [pid]
    for known in found:
        try:
            tasks = list(Path(f"/proc/{known}/task").iterdir())
            found += [int(word) for task in tasks for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while it was looked at
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _first_line(path: str) -> str:
    with Path(path).open() as file:
        return file.readline()


def _busy_seconds() -> float:
    """What all cores together have worked since the machine started (proc(5), /proc/stat)."""
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = _first_line("/proc/stat").split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


def _stored(folder: Path) -> int:
    found = [*folder.glob("artifact"), *folder.glob("*/*.db.gz"), *folder.glob("*/*.db.zst")]
    return sum(path.stat().st_size for path in found)
