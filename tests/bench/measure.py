"""Time, processor time and memory of a command and everything it starts."""

from __future__ import annotations

import functools
import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from contenders import environment

from support.writer import Report, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contenders import Job

_SAMPLE_SECONDS = 0.02
_MIB = 1024 * 1024
_ROUND, _AGAIN = 512, 6144  # MiB
_NOTICED = 128  # MiB of a database whose copy is large enough to tell
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
    _settle(job)
    return _timed(script, job, limit)


def _timed(script: str, job: Job, limit: float) -> Sample:
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


class _Others:
    """The pages of a file that nobody needs, in the page cache.

    A host that has run for a while has little memory that is free: a copy takes what the page cache gives up.  A
    virtual machine that has much gives it back to its host, and takes seconds per GiB to get it again, at random: who
    comes first would pay for who comes next.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as this process lives
        self._size = os.sysconf("SC_PHYS_PAGES") * _PAGE * 2
        self._file.truncate(self._size)  # a hole: no disk is read
        self._at = 0

    def fill(self) -> None:
        """Until the kernel keeps as much free as it always does, and has used that too."""
        free = os.sysconf("SC_AVPHYS_PAGES")
        while True:
            before = free
            self._read(_ROUND)
            free = os.sysconf("SC_AVPHYS_PAGES")
            if free > before - _ROUND * _MIB // _PAGE // 4:
                break
        self._read(_AGAIN)

    def _read(self, mib: int) -> None:
        for _ in range(mib):
            os.pread(self._file.fileno(), _MIB, self._at)
            self._at = (self._at + _MIB) % self._size


@functools.cache
def _others(folder: Path) -> _Others:
    return _Others(folder)


def _settle(job: Job) -> None:
    """Nobody pays for what the one before left to be written, and memory is as on a host that has run for a while."""
    os.sync()
    if job.database.stat().st_size >= _MIB * _NOTICED:
        _others(job.folder.parent).fill()
    with job.database.open("rb", buffering=0) as file:
        while file.read(_MIB):
            pass


def stored(job: Job) -> int:
    return sum(path.stat().st_size for path in job.store.rglob("*") if path.is_file())


def measure_beside_a_writer(script: str, job: Job, limit: float) -> tuple[Sample, Report]:
    _settle(job)
    with Writer(job.database) as writer:
        sample = _timed(script, job, limit)
        return sample, writer.stop()


def writer_alone(job: Job, seconds: float) -> Report:
    _settle(job)
    with Writer(job.database) as writer:
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
