"""A daemon that has nothing to do: how soon it is ready, and what it keeps in memory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from contenders import BALANCED, LITESTREAM, PROGRAM, Job, environment
from measure import resident, tree

from support.databases import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SETTLED_SECONDS = 3.0
_PATIENCE = 30.0
_LOOK_SECONDS = 0.002


class Idle(NamedTuple):
    """`ready`: seconds from its start; `memory` and `anonymous` as in `measure.Sample`."""

    ready: float
    memory: int
    anonymous: int


def idle(folder: Path, repeat: int) -> dict[str, Idle]:
    """Both watch the sample database; medians."""
    starts: dict[str, Callable[[Job], Idle]] = {"scpln-backup serve": _ours}
    if not LITESTREAM.missing:
        starts["litestream replicate"] = _litestream
    found: dict[str, list[Idle]] = {name: [] for name in starts}
    for _ in range(repeat):
        for name, start in starts.items():
            job = Job(folder / "idle" / "scpln.db", folder / "idle")
            (job.folder / "work").mkdir(parents=True)
            job.store.mkdir()
            shutil.copyfile(SAMPLE, job.database)
            found[name].append(start(job))
            shutil.rmtree(job.folder)
    return {
        name: Idle(
            statistics.median(one.ready for one in each),
            int(statistics.median(one.memory for one in each)),
            int(statistics.median(one.anonymous for one in each)),
        )
        for name, each in found.items()
    }


def _ours(job: Job) -> Idle:
    """Ready when it says so to systemd (sd_notify(3), READY=1)."""
    BALANCED.configure(job)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(job.folder / "notify"))
        notices.settimeout(_PATIENCE)
        command = [str(PROGRAM), "-c", str(job.folder / "work" / "config.toml"), "serve"]
        began = time.monotonic()
        with _running(command, {**environment(job), "NOTIFY_SOCKET": str(job.folder / "notify")}) as process:
            while b"READY=1" not in notices.recv(4096):
                pass
            return _settled(process.pid, time.monotonic() - began)


def _litestream(job: Job) -> Idle:
    """Ready when the first file has come to the replica: it says nothing to systemd."""
    command = ["litestream", "replicate", str(job.database), f"file://{job.store}"]
    began = time.monotonic()
    with _running(command, environment(job)) as process:
        while not any(path.is_file() for path in job.store.rglob("*")):
            if time.monotonic() - began > _PATIENCE:
                raise RuntimeError("litestream has replicated nothing")
            time.sleep(_LOOK_SECONDS)
        return _settled(process.pid, time.monotonic() - began)


def _settled(pid: int, ready: float) -> Idle:
    time.sleep(_SETTLED_SECONDS)
    seen = [resident(each) for each in tree(pid)]
    return Idle(ready, sum(whole for whole, _ in seen), sum(own for _, own in seen))


@contextmanager
def _running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(_PATIENCE)
