"""The one place that starts processes."""

from __future__ import annotations

import ctypes
import os
import pwd
import selectors
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.errors import CommandError, from_os
from scpln_backup.support import keeper

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# A plain `systemctl kill -s USR1` reaches every process of the unit's control group, and the default action of
# SIGUSR1 and SIGHUP is death.  Blocked here, they stay blocked in the child through fork and exec, so there is no
# moment at which they could end it.
SHIELDED = (signal.SIGUSR1, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 4 * 1024 * 1024
_CANCEL_LOOK_SECONDS = 0.25
_SIGNALLED = 128
_OUTPUT_MODE = 0o600

# What systemd tells the daemon and means for it alone: a command with NOTIFY_SOCKET could speak in its name.
_DAEMONS_OWN = (
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


@contextmanager
def shielded(signals: Sequence[signal.Signals] = SHIELDED) -> Iterator[None]:
    """Block the signals that children must not get, in the calling thread, while a child is started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(
    module: str, *, pass_fds: Sequence[int] = (), shield: Sequence[signal.Signals] = SHIELDED
) -> subprocess.Popen[bytes]:
    """Run a module of this package in a process of its own, with pipes to stdin and stdout.

    It gets a session of its own, so that ^C at a terminal reaches the caller alone, and never one of the signals in
    `shield`.  The module should call `die_with_parent` first thing.  `pass_fds` stay open in it (a lock that lasts as
    long as either lives).
    """
    # The package need not be where an interpreter looks by itself (a launcher may have put it on the path).
    found = os.pathsep.join(entry for entry in sys.path if entry)
    with shielded(shield):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid())],
            env={**os.environ, "PYTHONPATH": found},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def ending(status: int) -> str:
    """How a worker ended that gave no result, and where to look; `status` as `Popen.wait` returns it."""
    if status == -signal.SIGKILL:
        return "killed; out of memory? see: journalctl -k"
    if status == -signal.SIGBUS:  # a page of a mapped file that could not be read
        return "signal 7, bus error; is the disk healthy? see: journalctl -k"
    return f"signal {-status}; see the log" if status < 0 else f"exit code {status}; see the log"


def die_with_parent() -> None:
    """For a worker: have the kernel kill it when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""
    parent = int(sys.argv[1])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl: nobody is left to work for
        os._exit(1)


def keep_freed_memory() -> None:
    """For a worker that asks for megabytes and frees them by the thousand (mallopt(3)).

    By itself glibc gives each of them back to the kernel, which then has to find it and clear it again page by page:
    a sixth of the time of a run.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not so in musl
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `exit_code` is 128 + N for one that signal N ended, as in a shell.

    It is None when the command was ended: `timed_out`, or `cancelled`. `seconds` is how long it ran. `problems` is
    what else went wrong, in sentences: processes that could not be ended, output that could not be kept.
    """

    exit_code: int | None
    timed_out: bool
    cancelled: bool
    seconds: float
    problems: tuple[str, ...] = ()


def environment(**extra: str) -> dict[str, str]:
    """This process's environment for a command: without what is meant for the daemon alone, with `extra`."""
    return {name: value for name, value in os.environ.items() if name not in _DAEMONS_OWN} | extra


def run_to_end(
    argv: Sequence[str],
    *,
    directory: Path,
    env: Mapping[str, str],
    timeout_seconds: float,
    output: Path,
    cancel: threading.Event | None = None,
    user: str | None = None,
    hold: Sequence[int] = (),
) -> CommandResult:
    """Run a configured command without a shell, and end it with everything it started, whatever that did.

    It has a session of its own and no input; what it and its children print is appended to `output` (0600), of more
    than 10 MiB the beginning and the end. It is ended when it runs for longer than `timeout_seconds`, when `cancel` is
    set, and when this process is killed: SIGTERM, two seconds later SIGKILL. What it leaves running in the
    background is ended the same way.

    `user` is whom it runs as when this runs as root; without root it is the caller. `hold` are descriptors that stay
    open until nothing of the command is left (a lock), the command itself does not get them.
    Raises CommandError when it cannot be started, BackupError when `output` cannot be written.
    """
    env = dict(env)
    identity = _identity(user, env) if user is not None and os.geteuid() == 0 else None
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(output, flags, _OUTPUT_MODE)
    except OSError as error:
        raise from_os(error) from error
    try:
        process = start_worker(keeper.__name__, pass_fds=[descriptor, *hold])
    finally:
        os.close(descriptor)
    request = keeper.Request(
        list(argv), str(directory), env, timeout_seconds, descriptor, [int(number) for number in SHIELDED], identity
    )
    try:
        assert process.stdin is not None  # noqa: S101 - start_worker opens it
        with suppress(BrokenPipeError):  # it died already; the missing answer tells
            process.stdin.write(request.encode())
            process.stdin.flush()
        answer = _answer(process, cancel)
    finally:
        _let_go(process)
    if not answer:
        raise CommandError(f"{argv[0]}: the process that kept it was killed, and it with it; out of memory?")
    result = keeper.Result.decode(answer)
    if result.refusal is not None:
        raise CommandError(result.refusal)
    exit_code = result.exit_code
    return CommandResult(
        exit_code=exit_code if exit_code is None or exit_code >= 0 else _SIGNALLED - exit_code,
        timed_out=result.ending is keeper.Ending.TIMED_OUT,
        cancelled=result.ending is keeper.Ending.STOPPED,
        seconds=result.seconds,
        problems=tuple(result.problems),
    )


def _identity(user: str, env: dict[str, str]) -> keeper.Identity:
    """Whom to become, and in `env` what goes with it."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandError(f"{user}: there is no such user to run a command as") from None
    env.update(HOME=account.pw_dir, USER=user, LOGNAME=user)
    return keeper.Identity(account.pw_uid, account.pw_gid, os.getgrouplist(user, account.pw_gid))


def _answer(process: subprocess.Popen[bytes], cancel: threading.Event | None) -> bytes:
    """The keeper's answer, b"" when it was killed. Closes its stdin when `cancel` is set: that ends the command."""
    assert process.stdin is not None  # noqa: S101 - start_worker opens both
    assert process.stdout is not None  # noqa: S101 - as above
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while cancel is not None and not cancel.is_set():
            if selector.select(_CANCEL_LOOK_SECONDS):
                break
    if cancel is not None and cancel.is_set():
        with suppress(BrokenPipeError):
            process.stdin.close()
    return process.stdout.readline()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Wait for the keeper's end, which closing its stdin brings about; it takes seconds at the most."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()


@dataclass(frozen=True)
class Answer:
    """What a tool said. `exit_code` is None when it had not ended in time, and was killed."""

    exit_code: int | None
    text: str


def ask(argv: Sequence[str], *, timeout_seconds: float) -> Answer:
    """Run a tool that is trusted to end, and return what it printed on both streams. OSError when there is none.

    It has a session of its own, so that ^C at a terminal does not end it halfway, speaks English, and gets nothing
    to read. After `timeout_seconds` its process group is killed.
    """
    with shielded():
        process = subprocess.Popen(
            list(argv),
            env=environment(LC_ALL="C.UTF-8"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with process:
        try:
            text, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as late:
            os.killpg(process.pid, signal.SIGKILL)
            return Answer(None, (late.output or b"").decode(errors="replace"))
    return Answer(process.returncode, text.decode(errors="replace"))
