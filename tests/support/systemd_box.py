r"""A box: a real systemd, PID 1 of namespaces of its own, with scpln-backup installed in it.

    with SystemdBox(root_file_system(), libraries()) as box:
        box.install_unit("hello.service", "[Service]\nExecStart=/bin/echo hello\n")
        box.systemctl("start", "hello.service")
        box.wait_for_journal("hello.service", "hello")

It starts in under a second, sees nothing of the host but a read-only daemon/ of this checkout, and leaves
nothing behind. Tests take it from the fixtures `box` and `module_box` of conftest.py.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.box_keeper import NAME_PREFIX
from support.box_parts import CHECKOUT, cache_folder

KEEPER = Path(__file__).with_name("box_keeper.py")
LIBRARIES = "/usr/lib/scpln-backup/libraries"
PROGRAM = "/usr/lib/scpln-backup/daemon"
# Isolated from the user's site-packages and PYTHON* variables, so it asks for the stacks of a hang itself.
LAUNCHER = f"""\
#!/usr/bin/python3 -IXfaulthandler
import sys

sys.path[:0] = ["{PROGRAM}", "{LIBRARIES}"]
from scpln_backup.cli.entry import main

sys.exit(main())
"""
CLEAN_ENVIRONMENT = (
    "env",
    "-i",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "SYSTEMD_PAGER=",
    "SYSTEMD_COLORS=0",
)


class BoxError(Exception):
    """The box did not start, or a command in it failed; the message carries what it printed."""


def why_impossible() -> str | None:
    """The plain reason why no box can be started here, or None."""
    if os.geteuid() != 0:
        return "a systemd box needs root"
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="utf-8"):
        return "a systemd box needs overlayfs, and this kernel has it not loaded"
    for command in ("mmdebstrap", "nsenter"):
        if shutil.which(command) is None:
            return f"a systemd box needs {command}"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        return "a systemd box needs cgroups that may be written to"
    return None


class SystemdBox:
    """Context manager; every path and unit name is the box's own."""

    def __init__(self, root: Path, libraries: Path | None = None) -> None:
        """`libraries` None leaves scpln-backup out, for a test that installs it in some other way."""
        self._root = root
        self._libraries = libraries
        self._init = 0

    def __enter__(self) -> Self:
        stage = cache_folder() / "stage"  # every box mounts over it, seen by itself alone
        stage.mkdir(exist_ok=True)
        box = {"stage": str(stage), "root": str(self._root)}
        binds = {}
        if self._libraries is not None:
            binds = {LIBRARIES: str(self._libraries), PROGRAM: str(CHECKOUT / "daemon")}
        self._complaints = tempfile.TemporaryFile()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), json.dumps(box), json.dumps(binds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,  # ^C at the terminal is for pytest, which then ends the box
        )
        try:
            self._wait_until_started(time.monotonic() + 60)
            if self._libraries is not None:
                self.write("/usr/bin/scpln-backup", LAUNCHER, mode=0o755)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def name(self) -> str:
        """The box's host name, and that of its cgroups on the host."""
        return f"{NAME_PREFIX}{self._keeper.pid}"

    @property
    def init(self) -> int:
        """The box's PID 1, as the host counts."""
        return self._init

    def path(self, inside: str) -> Path:
        """The host's name of a path in the box, to read and write; not for absolute links in the box."""
        return Path(f"/proc/{self._init}/root{inside}")

    def write(self, inside: str, text: str, *, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def run(
        self, *command: str, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the box as root, to its end; BoxError when it fails, unless `check` is False."""
        done = subprocess.run(
            self._enter("--pid", *command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}{done.stderr}".strip()
            raise BoxError(f"{' '.join(command)} ended with {done.returncode}: {said}")
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def install_unit(self, name: str, text: str | None = None) -> None:
        """Put a unit where the administrator's go: the one in systemd/ of the checkout, or `text`."""
        if text is None:
            text = (CHECKOUT / "systemd" / name).read_text(encoding="utf-8")
        self.write(f"/etc/systemd/system/{name}", text)
        self.systemctl("daemon-reload")

    def add_drop_in(self, unit: str, text: str) -> None:
        """Override settings of an installed unit, as `systemctl edit` does."""
        self.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        wanted = [f"--property={name}" for name in properties]
        lines = self.systemctl("show", unit, *wanted).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str) -> str:
        """Every message of and about a unit so far, one a line."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout

    def wait_for_journal(self, unit: str, pattern: str, *, timeout: float = 20, after: int = 0) -> str:
        """Wait for a journal line that matches; the first `after` matches are passed over."""
        # Without --pid nsenter becomes journalctl, so that ending it here ends it there.
        follow = self._enter("--pid", "journalctl", "--follow", "--lines=all", "--output=cat", "--unit", unit)
        left = after
        deadline = time.monotonic() + timeout
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            try:
                for line in _lines_until(process.stdout.fileno(), deadline):
                    if re.search(pattern, line):
                        if left == 0:
                            return line
                        left -= 1
            finally:
                process.kill()
        raise BoxError(f"no line like {pattern!r} within {timeout} s in:\n{self.journal(unit)}")

    def wait_for_state(
        self, unit: str, wanted: Callable[[dict[str, str]], bool], *properties: str, timeout: float = 20
    ) -> dict[str, str]:
        """Wait until a unit's properties are as wanted. Asks again and again: prefer the journal."""
        deadline = time.monotonic() + timeout
        while not wanted(state := self.show(unit, *properties)):
            if time.monotonic() > deadline:
                raise BoxError(f"{unit} is still {state} after {timeout} s:\n{self.journal(unit)}")
            time.sleep(0.05)
        return state

    def _enter(self, *arguments: str) -> list[str]:
        """`arguments` is a command, with more of nsenter's options before it if it likes."""
        options = [word for word in arguments[:1] if word.startswith("--")]
        command: Sequence[str] = arguments[len(options) :]
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--cgroup", *options]
        return ["nsenter", "--target", str(self._init), *namespaces, "--", *CLEAN_ENVIRONMENT, *command]

    def _wait_until_started(self, deadline: float) -> None:
        assert self._keeper.stdout is not None
        for line in _lines_until(self._keeper.stdout.fileno(), deadline):
            if line.startswith("init "):
                self._init = int(line.removeprefix("init "))
            elif line == "ready":
                # READY comes with the default target; jobs that it did not wait for may still run.
                self.run("systemctl", "is-system-running", "--wait", check=False)
                return
        raise BoxError(f"the box did not start: {self._complaint() or 'systemd never said that it was ready'}")

    def _complaint(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace").strip()

    def _end(self) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with self._complaints, self._keeper.stdout:
            self._keeper.stdin.close()
            code = self._keeper.wait(timeout=30)
            if code != 0:
                raise BoxError(f"the box's keeper ended with {code}: {self._complaint()}")


def _lines_until(descriptor: int, deadline: float) -> Iterator[str]:
    """The lines that a pipe gives before it ends or the deadline (monotonic seconds) passes."""
    buffer = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        if not (chunk := os.read(descriptor, 65536)):
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
