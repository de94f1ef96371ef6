"""Time, processor time and memory of a command and everything it starts."""

from __future__ import annotations

import mmap
import os
import select
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from contenders import environment

from support.writer import Report, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contenders import Job

_SAMPLE_SECONDS = 0.02
_COPIES = 1.5  # of the database, which a backup or a restore may leave in the page cache
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """`memory` and `anonymous`: the most that all processes together had resident at a moment, looked at every 20 ms.

    The one counts pages of files too, which the kernel takes back when it needs them; the other does not.  `stored` is
    what has come to the store, in bytes.  `others` is how many processor cores were busy with something else.
    `problem` is None when the command succeeded; `output` is what it printed.
    """

    wall: float
    cpu: float
    memory: int
    anonymous: int
    stored: int
    others: float
    problem: str | None
    output: str


def middle(samples: Sequence[Sample]) -> Sample:
    """The medians, each of its own, of those that succeeded."""
    good = [sample for sample in samples if sample.problem is None]
    if not good:
        return samples[0]
    median: Callable[[list[float]], float] = statistics.median
    return Sample(
        median([s.wall for s in good]),
        median([s.cpu for s in good]),
        int(median([s.memory for s in good])),
        int(median([s.anonymous for s in good])),
        int(median([s.stored for s in good])),
        median([s.others for s in good]),
        None,
        good[-1].output,
    )


def measure(script: str, job: Job, limit: float) -> Sample:
    """Run one script, given up after `limit` seconds."""
    os.sync()  # nobody pays for what the one before left to be written
    _touch_memory(int(job.database.stat().st_size * _COPIES))
    before = stored(job)
    output, log = job.folder / "stdout", job.folder / "stderr"
    with output.open("wb") as out, log.open("wb") as errors:
        began, busy = time.monotonic(), _busy_seconds()
        process = subprocess.Popen(
            ["sh", "-ec", script],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env=environment(job),
            start_new_session=True,
        )
        memory, anonymous, in_time = _watch(process.pid, began + limit)
        wall = time.monotonic() - began
        if not in_time:
            _end(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    problem = None
    if not in_time:
        problem = f"not done after {limit:g} s"
    elif process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        problem = lines[-1].replace(f"{job.folder}/", "") if lines else f"exit code {process.returncode}"
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, _busy_seconds() - busy - cpu) / wall
    said = output.read_text(errors="replace")
    return Sample(wall, cpu, memory, anonymous, stored(job) - before, others, problem, said)


def _touch_memory(size: int) -> None:
    """Have the kernel hold that much free memory that has been used before.

    A host that has run for a while has no other, and its page cache takes what files had before.  A virtual machine gives
    memory that is free back to its host, and takes seconds per GiB to get it again: at random, so that who comes first
    would pay for who comes next.
    """
    with mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
        pass


def stored(job: Job) -> int:
    return sum(path.stat().st_size for path in job.store.rglob("*") if path.is_file())


def measure_beside_a_writer(script: str, job: Job, limit: float) -> tuple[Sample, Report]:
    with Writer(job.database) as writer:
        sample = measure(script, job, limit)
        return sample, writer.stop()


def writer_alone(database: Path, seconds: float) -> Report:
    with Writer(database) as writer:
        time.sleep(seconds)
        return writer.stop()


def resident(pid: int) -> tuple[int, int]:
    """What a process has in memory, and how much of that is no page of a file (proc(5), statm)."""
    try:
        _, pages, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    return pages * _PAGE, (pages - shared) * _PAGE


def tree(pid: int) -> list[int]:
    """A process and those it has started, and so on."""
    found = [pid]
    for known in found:
        try:
            tasks = list(Path(f"/proc/{known}/task").iterdir())
            found += [int(word) for task in tasks for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while it was looked at
    return found


def _end(pid: int) -> None:
    """A command that was given up, with what it has started in sessions of their own."""
    for each in reversed(tree(pid)):
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _watch(pid: int, deadline: float) -> tuple[int, int, bool]:
    """Wait for the end of a process; return the most memory seen, of both kinds, and whether it ended in time."""
    memory = anonymous = 0
    descriptor = os.pidfd_open(pid)
    try:
        while time.monotonic() < deadline:
            seen = [resident(each) for each in tree(pid)]
            memory = max(memory, sum(whole for whole, _ in seen))
            anonymous = max(anonymous, sum(own for _, own in seen))
            if select.select([descriptor], [], [], _SAMPLE_SECONDS)[0]:
                return memory, anonymous, True
    finally:
        os.close(descriptor)
    return memory, anonymous, False


def _busy_seconds() -> float:
    """What all cores together have worked since the machine started (proc(5), /proc/stat)."""
    with Path("/proc/stat").open() as file:
        first = file.readline()
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = first.split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")
