"""Faults in the unmodified program's system calls, put there by strace, and a house to suffer them.

strace counts a call (`when=N`) for each thread by itself. So a fault goes into exactly one process: the command
without `-f`, or the worker through a wrapper that stands in for its interpreter. A recording of an undisturbed run
names every call that changes something on disk or tells somebody something, with its number; then each of them is
hit in a run of its own, and the trace of that run must show that the fault struck just there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Whatever writes, makes durable, names, creates or takes away; openat where it may create.
ON_DESCRIPTOR = (
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
    *("fsync", "fdatasync", "sync_file_range", "ftruncate", "fallocate", "fchmod", "fchown"),
)
ON_NAME = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "truncate", "chmod", "fchmodat", "creat", "openat"),
)
PATIENCE = 30.0
KILLED = -9

_LOOK_SECONDS = 0.005
_PIPE = "pipe"
_NEW = "NEW"
_HEX = "HEX"
_PYTHON = sys.executable
# Buffered as it is for everybody, whatever the tests are run with.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?)\) += (?P<result>.*)")
_MADE_UP = re.compile(r"\(INJECTED\)$", re.MULTILINE)
_KILLED_AT = re.compile(r"\) += \?$", re.MULTILINE)  # the call that never returned
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_ARTIFACT = re.compile(r"scpln-\d{8}_\d{4,6}(-\d+)?\.db\.\w+?\b")


class Process(StrEnum):
    COMMAND = "command"
    WORKER = "worker"


@dataclass(frozen=True)
class Call:
    """A system call of a run. `where` is the path inside the house, with names of the day made general, or a pipe.

    `number` counts from 1 as strace does: the calls of this name in this thread, on this path where it is a fixed
    one (strace -P), else on whatever.
    """

    process: Process
    name: str
    number: int
    where: str

    @property
    def fixed(self) -> bool:
        """Whether strace can pick the call by its path: it is known before the run, and not a rename's second."""
        return self.where != _PIPE and _NEW not in self.where and _HEX not in self.where and "rename" not in self.name

    def __str__(self) -> str:
        return f"{self.process}: {self.name} {self.number} on {self.where}"


@dataclass(frozen=True)
class Finished:
    """A command that ended. `struck` is the call that the fault hit, None when it hit nothing."""

    code: int
    stdout: str
    stderr: str
    struck: Call | None = None


@cache
def why_impossible() -> str | None:
    """Why no faults can be injected here, None if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    probe = ["strace", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else None


class Program:
    """The command in a folder of its own, run as installed, with or without a fault."""

    def __init__(self, folder: Path, known: Iterable[str] = ()) -> None:
        self.folder = folder
        self._known = frozenset(known)

    def arguments(self, *verb: str) -> list[str]:
        return ["-m", "scpln_backup", "-c", str(self.folder / "config.toml"), *verb]

    def run(self, *verb: str, prefix: Sequence[str] = ()) -> Finished:
        """Run the command, behind `prefix` (such as strace), to its end."""
        return self._finish([*prefix, _PYTHON, *self.arguments(*verb)])

    def start(self, *verb: str) -> subprocess.Popen[str]:
        """Start the command as a terminal does: leading a process group of its own."""
        return subprocess.Popen(
            [_PYTHON, *self.arguments(*verb)],
            env=_ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def record(self, *verb: str) -> list[Call]:
        """Run the command undisturbed; return every call that a fault can strike, in each process's own order.

        Only the main threads of the command and of its worker may make such calls: a fault is counted by thread.
        """
        traces = self.folder / "traces"
        traces.mkdir()
        names = ",".join(("execve", *ON_DESCRIPTOR, *ON_NAME))
        tracer = ["strace", "-ff", "-y", "-s0", "-o", str(traces / "trace"), "-e", f"trace={names}"]
        finished = self.run(*verb, prefix=tracer)
        assert finished.code == 0, finished.stderr
        calls: dict[Process, list[Call]] = {}
        for trace in traces.iterdir():
            text = trace.read_text()
            process = _process(text)
            found = self._calls(text, process or Process.COMMAND)
            assert process or not found, f"a thread of its own changes something: {[str(call) for call in found]}"
            if process and found:
                assert process not in calls, f"{trace}: a second {process}"
                calls[process] = found
        shutil.rmtree(traces)
        return [call for process in Process for call in calls.get(process, [])]

    def strike(self, call: Call, fault: str, *verb: str) -> Finished:
        """Run the command with `fault` ("signal=KILL", "error=ENOSPC") put into `call`.

        Where the number of calls before it hangs on timing (a worker's progress), another or none may be struck:
        compare `struck` with what was meant.
        """
        trace = self.folder / "trace"
        tracer = ["strace", "-q", "-y", "-s0", "-o", str(trace), "-e", f"trace={call.name}"]
        tracer += ["-e", f"inject={call.name}:{fault}:when={call.number}"]
        if call.fixed:
            tracer += ["-P", str(self.folder / call.where)]
        if call.process is Process.WORKER:
            finished = self._strike_worker(tracer, *verb)
        else:
            # A filter in the kernel makes it twice as fast, and has to be put into all processes: only where the
            # worker has no business with the path. strace 6.1 forgets to send signals with it.
            faster = ["-ff", "--seccomp-bpf"] if call.fixed and "error" in fault else []
            finished = self._finish([*tracer, *faster, _PYTHON, *self.arguments(*verb)])
        texts = [_whole(path) for path in self.folder.glob("trace*")]
        mark = _KILLED_AT if "signal" in fault else _MADE_UP
        struck = next((self._struck(text, mark, call.process) for text in texts if mark.search(text)), None)
        for path in self.folder.glob("trace*"):
            path.unlink()
        return Finished(finished.code, finished.stdout, finished.stderr, struck)

    def _strike_worker(self, tracer: list[str], *verb: str) -> Finished:
        """The worker is started with the command's own `sys.executable`, which Python takes from argv[0].

        A virtual environment whose interpreter is a wrapper makes it start under strace. With -D it stays its
        parent's direct child: its pid, its exit status and the parent-death signal are what they always are.
        """
        environment = self.folder / "environment"
        wrapper = environment / "bin" / "python"
        wrapper.parent.mkdir(parents=True)
        real = Path(_PYTHON).parent.parent
        for name in ("pyvenv.cfg", "lib"):
            (environment / name).symlink_to(real / name)
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([tracer[0], "-D", *tracer[1:]])} {_PYTHON} "$@"\n')
        wrapper.chmod(0o755)
        finished = self._finish([str(wrapper), *self.arguments(*verb)], executable=_PYTHON)
        shutil.rmtree(environment)
        return finished

    def _finish(self, command: list[str], executable: str | None = None) -> Finished:
        # Files inside the house, so that a trace tells a write to stdout from others.
        with (self.folder / "stdout").open("w+") as out, (self.folder / "stderr").open("w+") as err:
            ended = subprocess.run(
                command,
                executable=executable,
                cwd=self.folder,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=PATIENCE,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            return Finished(ended.returncode, out.read(), err.read())

    def _calls(self, trace: str, process: Process) -> list[Call]:
        counted: Counter[str] = Counter()
        calls = []
        for match in _CALL.finditer(trace):
            name, arguments = match["name"], match["arguments"]
            if name not in (*ON_DESCRIPTOR, *ON_NAME):
                continue
            where = self._where(name, arguments)
            call = Call(process, name, 0, where)
            counted.update([name, f"{name} {where}"])
            if where and (name != "openat" or "O_CREAT" in arguments):
                number = counted[f"{name} {where}" if call.fixed else name]
                calls.append(replace(call, number=number))
        return calls

    def _struck(self, trace: str, mark: re.Pattern[str], process: Process) -> Call | None:
        hit = mark.search(trace)
        calls = self._calls(trace[: hit.end()], process) if hit else []
        return calls[-1] if calls else None

    def _where(self, name: str, arguments: str) -> str:
        """The path that a call changes, relative to the house; "" for what is none of its business (.pyc files)."""
        described = re.findall(r"<([^<>]*)>", arguments)
        path = described[0] if described else ""
        if name in ON_NAME:
            path = os.path.join(path, re.findall(r'"([^"]*)"', arguments)[-1])  # noqa: PTH118 - as openat(2) joins them
        if path.startswith("pipe:"):
            return _PIPE
        if not path.startswith(f"{self.folder}/"):
            return ""
        path = path.removeprefix(f"{self.folder}/")
        if path == "stderr":
            return ""
        return _ARTIFACT.sub(self._general, _TEMPORARY.sub(f".{_HEX}.tmp", path))

    def _general(self, match: re.Match[str]) -> str:
        return match[0] if match[0] in self._known else _NEW


def _whole(trace: Path) -> str:
    """A trace that has its last line: behind a wrapper the tracer may end a moment after the command."""
    deadline = time.monotonic() + PATIENCE
    while True:
        text = trace.read_text() if trace.exists() else ""
        if text.endswith("+++\n") or time.monotonic() > deadline:
            return text
        time.sleep(_LOOK_SECONDS)


def _process(trace: str) -> Process | None:
    """Whose trace it is: a process's main thread begins with its execve, and only the command reads the config."""
    if not trace.startswith("execve("):
        return None
    return Process.COMMAND if '/config.toml", O_RDONLY' in trace else Process.WORKER
