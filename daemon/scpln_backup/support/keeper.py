"""The process that keeps a command and everything it starts, and ends all of it.

A process group or a session is left with one setsid(2), so neither is enough to find what a command has started.
This process is a "child subreaper" (prctl(2)): whatever is orphaned below it becomes its own child, so that it
cannot lose a descendant, and waitpid(2) saying that there is no child means that nothing is left.

stdin gets one Request as a line of JSON and stays open: its end says that the caller gave up or was killed, and
ends the command. stdout gets one Result. Standard library only: it starts in an instant and stays small.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What SIGTERM may take, then what SIGKILL may: a process that hangs in the kernel, or that is not ours to kill
# (sudo), must not hold the caller for ever.
GRACE_SECONDS = 2.0
KILL_LIMIT_SECONDS = 10.0
# Of a longer output the beginning and the end are kept: the end is where it says what went wrong.
HEAD_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 2 * 1024 * 1024

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_SIZE = 65536
_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
_UNCATCHABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})

_libc = ctypes.CDLL(None, use_errno=True)


class Ending(StrEnum):
    """Why a command's time was over. `stopped`: the caller gave up or is gone, or somebody sent SIGTERM."""

    EXITED = "exited"
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"
    REFUSED = "refused"


@dataclass(frozen=True)
class Identity:
    """Whom a command runs as."""

    uid: int
    gid: int
    groups: list[int]


@dataclass(frozen=True)
class Request:
    """`output` is a descriptor open for appending, `blocked` the signals that the command starts with blocked."""

    argv: list[str]
    directory: str
    env: dict[str, str]
    timeout_seconds: float
    output: int
    blocked: list[int]
    identity: Identity | None = None

    def encode(self) -> bytes:
        # The standard encoder writes what is not UTF-8 in a path (a lone surrogate in Python) as an escape.
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> Request:
        fields = json.loads(line)
        identity = fields.pop("identity")
        return Request(**fields, identity=None if identity is None else Identity(**identity))


@dataclass(frozen=True)
class Result:
    """`exit_code` is of a command that ended by itself, negative for a signal; `seconds` until it or its time ended.

    `refusal` says why it could not be started.
    """

    ending: Ending
    exit_code: int | None
    seconds: float
    problems: list[str]
    refusal: str | None = None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> Result:
        fields = json.loads(line)
        return Result(ending=Ending(fields.pop("ending")), **fields)


def main() -> None:
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the caller was killed before it could ask
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    result = _Keeper(Request.decode(line)).run()
    with suppress(BrokenPipeError):  # nobody is left to be told
        os.write(sys.stdout.fileno(), result.encode())


class _Keeper:
    """One command, from its start to the end of its last descendant."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._output = Output(request.output)
        self._selector = selectors.DefaultSelector()
        self._pid = 0
        self._exit_code: int | None = None
        self._stopped = False
        self._childless = False

    def run(self) -> Result:
        self._listen()
        began = time.monotonic()
        try:
            output = self._start()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Result(Ending.REFUSED, None, 0.0, [], _refusal(self._request, error))
        deadline = began + self._request.timeout_seconds
        while self._exit_code is None and not self._stopped and time.monotonic() < deadline:
            self._look(deadline)
        exit_code, seconds = self._exit_code, time.monotonic() - began
        ending = Ending.EXITED
        if exit_code is None:
            ending = Ending.STOPPED if self._stopped else Ending.TIMED_OUT
        problems = self._end_all()
        self._output.drain(output)
        self._output.finish()
        if self._output.problem is not None:
            problems.append(f"its output could not be kept: {self._output.problem}")
        return Result(ending, exit_code, round(seconds, 3), problems)

    def _listen(self) -> None:
        """Have signals and the end of stdin wake the selector."""
        waking, wakened = os.pipe()
        os.set_blocking(wakened, False)
        signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *_STOPPING):
            signal.signal(number, lambda _number, _frame: None)
        self._selector.register(waking, selectors.EVENT_READ, self._on_signals)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._on_caller)

    def _start(self) -> int:
        """Start the command; return the descriptor to read its output from."""
        request, identity = self._request, self._request.identity
        reading, writing = os.pipe()
        keeper = os.getpid()

        def prepare() -> None:
            # The last things before exec, in a process of one thread. The kernel kills the command should this
            # process be killed.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(1)
            for number in signal.valid_signals() - _UNCATCHABLE:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)

        try:
            self._process = subprocess.Popen(
                request.argv,
                cwd=request.directory,
                env=request.env,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                user=identity.uid if identity else None,
                group=identity.gid if identity else None,
                extra_groups=identity.groups if identity else None,
                preexec_fn=prepare,  # noqa: PLW1509 - there are no other threads here
            )
        finally:
            os.close(writing)
        self._pid = self._process.pid
        os.set_blocking(reading, False)
        self._selector.register(reading, selectors.EVENT_READ, self._on_output)
        return reading

    def _look(self, until: float) -> None:
        """Wait until something happens, or until then, and take note of it."""
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            key.data(key.fd)
        self._reap()

    def _on_output(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            data = os.read(descriptor, _READ_SIZE)
            if data:
                self._output.write(data)
            else:
                self._selector.unregister(descriptor)

    def _on_signals(self, descriptor: int) -> None:
        if not _STOPPING.isdisjoint(os.read(descriptor, _READ_SIZE)):
            self._stopped = True

    def _on_caller(self, descriptor: int) -> None:
        if not os.read(descriptor, _READ_SIZE):
            self._stopped = True
            self._selector.unregister(descriptor)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)

    def _end_all(self) -> list[str]:
        """End every descendant; return what went wrong."""
        self._reap()
        asked: set[int] = set()
        deadline = time.monotonic() + GRACE_SECONDS
        while not self._childless and time.monotonic() < deadline:
            found = list(descendants(os.getpid()))
            for pid, parent in found:
                if pid not in asked:
                    send(pid, parent, (signal.SIGTERM, signal.SIGCONT))  # a stopped one could not react
            asked.update(pid for pid, _ in found)
            self._look(deadline)
        # Every death below ends, through those above it, in a SIGCHLD here, and that in another look at who is left:
        # what was forked between two looks is found by the next.
        deadline = time.monotonic() + KILL_LIMIT_SECONDS
        while not self._childless and time.monotonic() < deadline:
            for pid, parent in list(descendants(os.getpid())):
                send(pid, parent, (signal.SIGKILL,))
            self._look(deadline)
        if self._childless:
            return []
        left = ", ".join(f"{pid} ({_name(pid)})" for pid, _ in descendants(os.getpid()))
        return [f"processes that could not be ended are left: {left}"]


class Output:
    """Appends to a descriptor what a command prints, all of it or its beginning and its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._room = HEAD_BYTES
        self._tail = bytearray()
        self._left_out = 0
        self.problem: str | None = None

    def write(self, data: bytes) -> None:
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._put(head)
        self._tail += rest
        if len(self._tail) > 2 * TAIL_BYTES:
            self._trim()

    def drain(self, descriptor: int) -> None:
        """Take what is still in the pipe; somebody who could not be ended may hold it open."""
        with suppress(BlockingIOError):
            while data := os.read(descriptor, _READ_SIZE):
                self.write(data)

    def finish(self) -> None:
        self._trim()
        if self._left_out:
            self._put(f"\n[{self._left_out} bytes of output are left out here]\n".encode())
        self._put(bytes(self._tail))

    def _trim(self) -> None:
        surplus = max(0, len(self._tail) - TAIL_BYTES)
        self._left_out += surplus
        del self._tail[:surplus]

    def _put(self, data: bytes) -> None:
        # A full disk costs the output, not the command: it is read on, and the problem told at the end.
        view = memoryview(data)
        while view and self.problem is None:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                self.problem = os.strerror(error.errno or 0)


def descendants(pid: int) -> Iterator[tuple[int, int]]:
    """The processes below `pid` and their parents, parents first."""
    pending = [pid]
    while pending:
        parent = pending.pop()
        for child in children(parent):
            yield child, parent
            pending.append(child)


def children(pid: int) -> list[int]:
    """The processes that the threads of `pid` have started or inherited; none when it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found += map(int, (task / "children").read_text().split())
    return found


def send(pid: int, parent: int, numbers: Sequence[signal.Signals]) -> None:
    """Signal a process that was seen below `parent`, and nobody who got its number since."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # gone
    try:
        # Still in its place, so the descriptor is that process's. Orphaned meanwhile, it is our own child.
        if pid in children(parent) or pid in children(os.getpid()):
            for number in numbers:
                signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return  # gone, or not ours to end: those left at the end are told of
    finally:
        os.close(descriptor)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone by now"


def _refusal(request: Request, error: Exception) -> str:
    program, directory = request.argv[0], request.directory
    if not Path(directory).is_dir():
        return f"{directory}: there is no such folder to run {program} in; check the configured directory"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{program}: cannot be started in {directory}: {reason}; check the configured command"


if __name__ == "__main__":
    main()
