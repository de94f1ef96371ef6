"""support/niceness.py, seen from outside: with ionice(1), ps(1), and what the kernel says of the session."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scpln_backup.support import niceness
from support.faults import why_impossible

AUTOGROUP = Path("/proc/self/autogroup").exists()
USUAL = os.getpriority(os.PRIO_PROCESS, 0)
LOW = min(19, USUAL + 10)

_LOOK = """
import json, os, subprocess, sys, threading
from pathlib import Path
from scpln_backup.support import niceness

def look():
    asked = ["ionice", "-p", str(threading.get_native_id())]
    disk = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0].rstrip(":")
    return {"disk": disk, "nice": os.getpriority(os.PRIO_PROCESS, 0), "session": session()}

def session():
    group = Path("/proc/self/autogroup")
    words = group.read_text().split() if group.exists() else []
    return int(words[-1]) if words else None  # nothing is said of the kernel's first session, which has no group

def in_a_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(look()))
    thread.start()
    thread.join()
    return seen[0]

"""


def looked(code: str, *before: str, session: bool = True) -> list[Any]:
    """What a program of its own saw at each look."""
    found = subprocess.run(
        [*before, sys.executable, "-c", f"{_LOOK}seen = []\n{code}\nprint(json.dumps(seen))"],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=session,
    )
    seen: list[Any] = json.loads(found.stdout)
    return seen


def test_the_disk_is_left_to_others_for_a_while() -> None:
    before, inside, after = looked(
        "seen.append(look())\nwith niceness.background_disk(): seen.append(look())\nseen.append(look())"
    )
    assert inside == before | {"disk": "idle"}
    assert before["disk"] != "idle"
    assert after["disk"] in {before["disk"], "best-effort"}  # as which what has no class is served


def test_what_the_operator_chose_comes_back() -> None:
    before, after = looked(
        "seen.append(look())\nwith niceness.background_disk(): pass\nseen.append(look())",
        *("ionice", "-c", "best-effort", "-n", "6"),
    )
    assert before == after


def test_other_threads_are_left_alone() -> None:
    (seen,) = looked(
        "import threading\nentered, leave = threading.Event(), threading.Event()\n"
        "def work():\n with niceness.background_disk():\n  entered.set(); leave.wait()\n"
        "thread = threading.Thread(target=work); thread.start(); entered.wait()\n"
        "seen.append(look()); leave.set(); thread.join()"
    )
    assert seen["disk"] != "idle"


def test_standing_back_is_for_all_that_follows() -> None:
    main, thread, child = looked(
        "niceness.stand_back()\nseen += [look(), in_a_thread()]\n"
        "again = [sys.executable, '-c', 'import os; print(os.getpriority(os.PRIO_PROCESS, 0))']\n"
        "seen.append(int(subprocess.run(again, capture_output=True, check=True).stdout))"
    )
    assert main == thread == {"disk": "idle", "nice": LOW, "session": 10 if AUTOGROUP else None}
    assert child == LOW


def test_what_is_nicer_already_gets_nicer_still() -> None:
    (seen,) = looked("niceness.stand_back()\nseen.append(look())", "nice", "-n", "15")
    assert seen["nice"] == 19


def test_a_session_of_others_is_left_alone() -> None:
    """A terminal's, or the test runner's: whoever calls it there is only one of many."""
    before, after = looked("seen.append(session())\nniceness.stand_back()\nseen.append(look())", session=False)
    assert after == {"disk": "idle", "nice": LOW, "session": before}


# A task inherits the slice of who started it, and the test runner may have been given one: 0 is the kernel's own.
_USUAL_SLICE = """
import ctypes, struct
usual = niceness._ATTRIBUTES.pack(48, os.SCHED_OTHER, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, 0, 0, 0)
ctypes.CDLL(None).syscall(niceness._SCHED_SETATTR, 0, usual, 0)
"""
# sched_getattr(2), whose number is that of sched_setattr and one: policy, nice, and the slice of a usual task.
_SLICE = """
buffer = ctypes.create_string_buffer(48)
ctypes.CDLL(None).syscall(niceness._SCHED_SETATTR + 1, 0, buffer, 48, 0)
_, policy, _, nice, _, slice, _, _ = struct.unpack("=IIQiIQQQ", buffer.raw)
seen.append([policy, nice, slice])
"""
KERNEL = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))


def test_whoever_wakes_up_is_let_before() -> None:
    """Nothing but the slice changes; where the kernel has none of its own for each task, that neither."""
    before, asked, nicer = looked(
        f"{_USUAL_SLICE}\n{_SLICE}\nniceness.yield_at_once()\n{_SLICE}\nniceness.stand_back()\n{_SLICE}"
    )
    assert before[:2] == asked[:2] == [os.SCHED_OTHER, USUAL]
    assert nicer[:2] == [os.SCHED_OTHER, LOW]
    if KERNEL >= (6, 12):
        assert before[2] < asked[2] == nicer[2] == 100_000_000


@pytest.mark.parametrize("policy", [os.SCHED_BATCH, os.SCHED_IDLE])
def test_another_policy_is_the_operators(policy: int) -> None:
    (seen,) = looked(
        f"os.sched_setscheduler(0, {policy}, os.sched_param(0))\nniceness.yield_at_once()\n"
        "seen.append(os.sched_getscheduler(0))"
    )
    assert seen == policy


def test_what_is_begun_is_written_and_what_is_read_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w+b") as file:
        file.write(b"data" * 5000)
        file.flush()
        niceness.begin_writing(file.fileno(), 0, 20_000)
    with niceness.read_piecemeal(path) as reading:
        assert reading.read(7) == b"datadat"
        assert reading.read() == (b"data" * 5000)[7:]


@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_where_it_is_refused_nothing_happens() -> None:
    """As in a unit whose SystemCallFilter= has no @resources."""
    refused = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=ioprio_set,setpriority,sched_setattr:error=EPERM"]
    seen = looked(
        "seen.append(look())\nwith niceness.background_disk(): seen.append(look())\n"
        "niceness.yield_at_once()\nniceness.stand_back()\nseen.append(look())",
        *refused,
    )
    assert {look["disk"] for look in seen} == {seen[0]["disk"]}
    assert [look["nice"] for look in seen] == [USUAL] * 3
