"""support/command.py and support/keeper.py: a configured command, and the end of everything it started.

Each command carries a mark of its own in an argument, so that a look through /proc tells whether anything of it is
left. What a command does is written in Python and starts with `up`, which tells the test that it is at work.
"""

import json
import os
import pwd
import select
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from scpln_backup.errors import BackupError, CommandError
from scpln_backup.support import keeper
from scpln_backup.support.command import CommandResult, ask, environment, run_to_end

LONG = 60
# A deadline that has to pass: long enough for a shell to start.
SHORT = 0.5

PRELUDE = """
import os, signal, subprocess, sys, time
mark = sys.argv[1]
def forever():
    while True:
        signal.pause()
def up():
    fd = os.open(os.environ["UP"], os.O_WRONLY)
    os.write(fd, b"up\\n")
    os.close(fd)
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"mark-{uuid.uuid4().hex}"
        self.output = folder / "output.log"
        self.fifo = folder / "up"
        os.mkfifo(self.fifo)

    def argv(self, code: str) -> list[str]:
        return [sys.executable, "-I", "-c", PRELUDE + textwrap.dedent(code), self.mark]

    def shell(self, code: str) -> list[str]:
        """Starts faster than a Python, for what has to be there before its time is over."""
        return ["sh", "-c", code, self.mark]

    def env(self, **extra: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "UP": str(self.fifo), **extra}

    def run(self, code: str, *, timeout_seconds: float = LONG, **options) -> CommandResult:
        return self.run_argv(self.argv(code), timeout_seconds=timeout_seconds, **options)

    def run_argv(self, argv: list[str], *, timeout_seconds: float = LONG, **options) -> CommandResult:
        options = {"directory": self.folder, "env": self.env(), **options}
        return run_to_end(argv, timeout_seconds=timeout_seconds, output=self.output, **options)

    def printed(self) -> str:
        return self.output.read_text()

    def left(self) -> list[int]:
        """The processes that carry the mark. A zombie has no command line any more."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    @contextmanager
    def once_up(self, action, times: int = 1):
        """Do something as soon as `up` was called so often, while the context runs the command."""

        def wait():
            with self.fifo.open("rb", buffering=0) as fifo:
                count = 0
                while count < times:
                    count += fifo.read(64).count(b"\n")
            action()

        # Both ends are open here, so that a command that never comes up blocks nobody.
        holding = os.open(self.fifo, os.O_RDWR)
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield
        finally:
            os.write(holding, b"up\n" * times)
            thread.join()
            os.close(holding)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    left = bench.left()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


# What the command gets, and what comes back


def test_output_and_exit_code(bench):
    bench.output.write_text("before\n")
    result = bench.run("print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.exit_code, result.timed_out, result.cancelled, result.problems) == (3, False, False, ())
    assert 0 < result.seconds < LONG
    assert bench.printed() == "before\nout\nerr\n"


def test_a_new_output_file_is_private(bench):
    assert bench.run("").exit_code == 0
    assert bench.output.stat().st_mode & 0o777 == 0o600


def test_an_output_behind_a_link_is_refused(bench):
    bench.output.symlink_to(bench.folder / "elsewhere")
    with pytest.raises(BackupError, match=r"output\.log"):
        bench.run("")


def test_a_signal_counts_as_in_a_shell(bench):
    assert bench.run("os.kill(os.getpid(), signal.SIGKILL)").exit_code == 128 + 9


def test_directory_environment_and_input(bench):
    bench.run(
        "import json; print(json.dumps([os.getcwd(), dict(os.environ), sys.stdin.read(), os.getsid(0) == os.getpid()]))",
        env=bench.env(SCPLN_DB="/x/ü\udcff.db"),
    )
    directory, env, read, leads = json.loads(bench.printed())
    assert directory == str(bench.folder)
    assert env == bench.env(SCPLN_DB="/x/ü\udcff.db")
    assert read == ""
    assert leads


def test_signals_are_normal_but_for_the_daemons(bench):
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        bench.run("print(open('/proc/self/status').read())")
    finally:
        signal.signal(signal.SIGTERM, previous)
    masks = dict(line.split(":\t") for line in bench.printed().splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGUSR1))
    assert not int(masks["SigIgn"], 16) & (1 << (signal.SIGTERM - 1))


def test_it_inherits_no_descriptors(bench):
    with (bench.folder / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        bench.run("print(sorted(os.listdir('/proc/self/fd')))", hold=[held.fileno()])
    assert bench.printed().strip() == "['0', '1', '2', '3']"  # 3 is the folder that is being listed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as somebody else")
def test_as_another_user(bench):
    account = pwd.getpwnam("nobody")
    code = "print(os.getuid(), os.getgid(), os.getgroups(), os.environ['HOME'], os.environ['USER'])"
    bench.run_argv(["/usr/bin/python3", "-I", "-c", PRELUDE + code, bench.mark], user="nobody", directory=Path("/"))
    groups = os.getgrouplist("nobody", account.pw_gid)
    assert bench.printed().split("\n")[0] == f"{account.pw_uid} {account.pw_gid} {groups} {account.pw_dir} nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as somebody else")
def test_as_nobody_at_all(bench):
    with pytest.raises(CommandError, match="no-such-user: there is no such user"):
        bench.run("", user="no-such-user")


# What cannot be started


def test_no_such_program(bench):
    with pytest.raises(CommandError, match=r"^no-such-program: cannot be started in .*: No such file"):
        bench.run_argv(["no-such-program", "x"])


def test_not_executable(bench):
    (bench.folder / "script.sh").write_text("#!/bin/sh\n")
    with pytest.raises(CommandError, match=r"^\./script.sh: cannot be started in .*: Permission denied; check"):
        bench.run_argv(["./script.sh"])


def test_not_a_program(bench):
    (bench.folder / "script").write_text("echo\n")
    (bench.folder / "script").chmod(0o755)
    with pytest.raises(CommandError, match=r"^\./script: cannot be started in .*: Exec format error"):
        bench.run_argv(["./script"])


def test_no_such_directory(bench):
    with pytest.raises(CommandError, match="/gone: there is no such folder to run true in"):
        bench.run_argv(["true"], directory=bench.folder / "gone")


def test_a_null_byte(bench):
    with pytest.raises(CommandError, match=r"cannot be started in .*: embedded null byte"):
        bench.run_argv(["true", "a\0b"])


# Its end, and that of all it started

IGNORING = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
LEAVING = {
    "a background child": "subprocess.Popen([sys.executable, '-I', '-c', PAUSE, mark]).returncode = 0",
    "a session of its own": "subprocess.Popen([sys.executable, '-I', '-c', PAUSE, mark], start_new_session=True).returncode = 0",
    "a daemon": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3):
                    os.close(fd)
                os.execv(sys.executable, [sys.executable, '-I', '-c', PAUSE, mark])
            os._exit(0)
        os.wait()
    """,
    "a family": """
        if os.fork() == 0:
            for _ in range(8):
                os.setsid() if os.fork() == 0 else None
            up()
            forever()
    """,
    "a stopped child": "os.kill(subprocess.Popen([sys.executable, '-I', '-c', PAUSE, mark]).pid, signal.SIGSTOP)",
}
PAUSE = "PAUSE = 'import signal; signal.pause()'\n"


@pytest.mark.parametrize("left", LEAVING)
def test_what_it_leaves_behind_is_ended(bench, left):
    with bench.once_up(lambda: None):
        result = bench.run(PAUSE + textwrap.dedent(LEAVING[left]) + "\nsys.exit(5)")
    assert result.exit_code == 5
    assert result.problems == ()
    assert bench.left() == []


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_hang_is_ended(bench, trap):
    result = bench.run_argv(bench.shell(trap + "echo begun; while :; do sleep 1000; done"), timeout_seconds=SHORT)
    assert (result.exit_code, result.timed_out, result.cancelled) == (None, True, False)
    assert SHORT <= result.seconds < SHORT + 2
    assert bench.printed().startswith("begun\n")
    assert bench.left() == []


def test_sigterm_comes_first(bench):
    code = "trap 'echo cleared away; exit' TERM; sleep 1000 & wait"
    assert bench.run_argv(bench.shell(code), timeout_seconds=SHORT).timed_out
    assert bench.printed() == "cleared away\n"


def test_a_family_that_grows_and_ignores_sigterm(bench):
    """Every generation has sessions of its own and goes on forking while it is being killed."""
    code = """
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        up()
        while True:
            if os.fork() == 0:
                os.setsid()
                signal.alarm(1)
                forever()
            time.sleep(0.05)
    """
    cancel = threading.Event()
    with bench.once_up(cancel.set, times=8):
        result = bench.run(code, cancel=cancel)
    assert result.cancelled
    assert result.problems == ()
    assert bench.left() == []


def test_cancelled(bench):
    cancel = threading.Event()
    with bench.once_up(cancel.set):
        result = bench.run("up(); forever()", cancel=cancel)
    assert (result.exit_code, result.timed_out, result.cancelled) == (None, False, True)
    assert bench.left() == []


def test_cancelled_before_it_began(bench):
    cancel = threading.Event()
    cancel.set()
    assert bench.run("forever()", cancel=cancel).cancelled
    assert bench.left() == []


def test_an_event_that_is_never_set(bench):
    assert bench.run("sys.exit(4)", cancel=threading.Event()).exit_code == 4


def test_an_exception_in_the_caller_ends_it(bench):
    class Interrupting(threading.Event):
        def is_set(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run("forever()", cancel=Interrupting())
    assert bench.left() == []


def the_keeper() -> int:
    """The one child of this process that is a keeper."""
    (found,) = [pid for pid in keeper.children(os.getpid()) if b"keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def test_a_signal_to_the_keeper_ends_it_cleanly(bench):
    with bench.once_up(lambda: os.kill(the_keeper(), signal.SIGTERM)):
        assert bench.run("up(); forever()").cancelled
    assert bench.left() == []


def test_the_daemons_signals_do_nothing_to_it(bench):
    """A plain `systemctl kill -s USR1` reaches every process of the control group."""

    def signalled() -> None:
        for pid in (the_keeper(), *bench.left()):
            for number in (signal.SIGUSR1, signal.SIGHUP):
                os.kill(pid, number)
        (bench.folder / "go").touch()
        with (bench.folder / "go-on").open("w"):
            pass

    os.mkfifo(bench.folder / "go-on")
    with bench.once_up(signalled):
        result = bench.run("up(); open('go-on').read(); sys.exit(6)")
    assert result.exit_code == 6


def test_a_killed_keeper_takes_the_command_with_it(bench):
    def kill() -> None:
        descriptors = [os.pidfd_open(pid) for pid in bench.left()]
        os.kill(the_keeper(), signal.SIGKILL)
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], 10)[0]
            os.close(descriptor)

    with bench.once_up(kill), pytest.raises(CommandError, match="the process that kept it was killed"):
        bench.run("up(); forever()")
    assert bench.left() == []


_PARENT = """
import sys
from pathlib import Path
from scpln_backup.support.command import run_to_end
folder, fifo, *argv = sys.argv[1:]
run_to_end(argv, directory=Path(folder), env={"UP": fifo}, timeout_seconds=60, output=Path(folder, "output.log"))
"""


def test_a_killed_parent_takes_everything_with_it(bench):
    code = """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                up()
                forever()
            os._exit(0)
        forever()
    """
    argv = [sys.executable, "-c", _PARENT, str(bench.folder), str(bench.fifo), *bench.argv(code)]
    watched = []
    with subprocess.Popen(argv) as parent:
        with bench.fifo.open("rb") as fifo:
            assert fifo.readline() == b"up\n"
        watched += [os.pidfd_open(pid) for pid, _ in keeper.descendants(parent.pid)]
        assert len(watched) >= 3  # the keeper, the command, the daemon
        parent.kill()
    for descriptor in watched:
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    assert bench.left() == []


def test_what_is_held_is_held_until_all_is_over(bench):
    """A lock that the keeper inherits is free only when nothing of the command is left."""
    reading, writing = os.pipe()
    code = "if os.fork() == 0: signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid(); up(); forever()\nforever()"
    cancel = threading.Event()

    def let_go() -> None:
        os.close(writing)
        assert not select.select([reading], [], [], 0)[0]
        cancel.set()

    with bench.once_up(let_go):
        bench.run(code, hold=[writing], cancel=cancel)
    assert os.read(reading, 1) == b""
    os.close(reading)


# Much output


def test_of_a_huge_output_both_ends_are_kept(bench):
    code = """
        print("first line")
        for number in range(40):
            sys.stdout.write(f"{number:07}\\n" * (64 * 1024))
        print("last line")
    """
    result = bench.run(code)
    assert result.exit_code == 0
    lines = bench.printed().splitlines()
    assert (lines[0], lines[-1]) == ("first line", "last line")
    total = len("first line\n") + 40 * 8 * 64 * 1024 + len("last line\n")
    left_out = total - keeper.HEAD_BYTES - keeper.TAIL_BYTES
    assert f"[{left_out} bytes of output are left out here]" in lines
    assert bench.output.stat().st_size < 10 * 1024 * 1024 + 100


def test_an_endless_output_does_not_outlive_its_time(bench):
    assert bench.run("while True: sys.stdout.write('x' * 65536)", timeout_seconds=SHORT).timed_out
    assert bench.output.stat().st_size < 10 * 1024 * 1024 + 100


def test_output_that_cannot_be_kept_is_told_and_costs_nothing_else(bench):
    bench.output = Path("/dev/full")
    result = bench.run("print('x')")
    assert result.exit_code == 0
    assert result.problems == ("its output could not be kept: No space left on device",)


# Tools


def test_asking_a_tool():
    answer = ask(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_seconds=LONG)
    assert (answer.exit_code, answer.text) == (3, "out\nerr\n")


def test_a_tool_that_hangs(bench):
    """Its children in the same group go with it. They hold the fifo open: its end says that they are gone."""
    fifo = os.open(bench.fifo, os.O_RDONLY | os.O_NONBLOCK)
    answer = ask(bench.shell(f"exec 9>{bench.fifo}; echo begun; sleep 1000 & sleep 1000"), timeout_seconds=SHORT)
    assert (answer.exit_code, answer.text) == (None, "begun\n")
    os.set_blocking(fifo, True)
    assert os.read(fifo, 1) == b""
    os.close(fifo)


def test_no_such_tool():
    with pytest.raises(FileNotFoundError):
        ask(["no-such-tool"], timeout_seconds=LONG)


def test_what_is_meant_for_the_daemon_alone_is_kept_from_commands(monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "LISTEN_FDS"):
        monkeypatch.setenv(name, "x")
    env = environment(SCPLN_DB="/x")
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "LISTEN_FDS"} & env.keys()
    assert env["SCPLN_DB"] == "/x"
    assert env["PATH"] == os.environ["PATH"]
