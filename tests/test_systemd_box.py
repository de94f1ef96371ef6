"""The box is what it claims to be, and is gone afterwards."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from support.box_keeper import hierarchies
from support.systemd_box import BoxError, SystemdBox

pytestmark = pytest.mark.systemd

NOTIFYING = """\
[Service]
Type=notify
NotifyAccess=main
DynamicUser=yes
LoadCredential=token:/etc/token
ExecStart=/usr/bin/python3 -I /usr/local/bin/notifying.py
"""
NOTIFYING_PROGRAM = """\
import os, signal, socket, sys
sys.path.insert(0, "/usr/lib/scpln-backup/libraries")
import msgspec, sdnotify, xxhash

signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped when asked"))
token = open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "token")).read()
print("token is", token, flush=True)
sdnotify.SystemdNotifier().notify("READY=1\\nSTATUS=at work")
signal.pause()
"""


def cgroups_of(name: str) -> list[Path]:
    return [one.mountpoint / name for one in hierarchies() if (one.mountpoint / name).exists()]


def processes_of(namespace: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "ns/pid").readlink()) == namespace:
                found.append(entry.name)
        except OSError:
            continue  # ended while we looked
    return found


def test_a_notifying_service_with_a_credential_lives_and_stops(box):
    box.write("/etc/token", "s3cret")
    box.write("/usr/local/bin/notifying.py", NOTIFYING_PROGRAM)
    box.install_unit("notifying.service", NOTIFYING)

    box.systemctl("start", "notifying.service")
    # Returned, so READY came through; a wrong notification would have made start fail.
    shown = box.show("notifying.service", "ActiveState", "StatusText", "MainPID")
    assert shown["ActiveState"] == "active"
    assert shown["StatusText"] == "at work"
    box.wait_for_journal("notifying.service", "token is s3cret")

    box.systemctl("stop", "notifying.service")
    box.wait_for_journal("notifying.service", "stopped when asked")


def test_a_failing_command_says_why(box):
    with pytest.raises(BoxError, match="no-such-unit"):
        box.systemctl("start", "no-such-unit.service")


def test_waiting_for_a_line_that_never_comes_ends_with_the_journal(box):
    box.install_unit("hello.service", "[Service]\nType=oneshot\nExecStart=/bin/echo hello there\n")
    box.systemctl("start", "hello.service")
    with pytest.raises(BoxError, match="hello there"):
        box.wait_for_journal("hello.service", "goodbye", timeout=0.5)


def test_the_box_is_apart_from_the_host(box):
    """Own processes, host name and network; the host's kernel settings are out of reach."""
    assert box.run("hostname").stdout.strip() == box.name
    assert box.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert box.run("sh", "-c", "ls /sys/class/net | grep -v '^lo$'", check=False).stdout == ""
    refused = box.run("sh", "-c", "echo 1 >/proc/sys/kernel/panic", check=False)
    assert "Read-only file system" in refused.stderr
    refused = box.run("touch", "/usr/lib/scpln-backup/daemon/x", check=False)
    assert "Read-only file system" in refused.stderr


def test_nothing_is_left_of_a_box(box_parts):
    mounts = Path("/proc/self/mountinfo").read_text()
    with SystemdBox(*box_parts) as box:
        namespace = str(Path(f"/proc/{box.init}/ns/pid").readlink())
        assert processes_of(namespace)
        assert cgroups_of(box.name)
    assert processes_of(namespace) == []
    assert cgroups_of(box.name) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_nothing_is_left_when_the_test_run_is_killed(box_parts):
    root, libraries = box_parts
    script = textwrap.dedent(f"""
        import os, pathlib, signal
        from support.systemd_box import SystemdBox
        with SystemdBox(pathlib.Path({str(root)!r}), pathlib.Path({str(libraries)!r})) as box:
            print(box.init, box.name, os.readlink(f"/proc/{{box.init}}/ns/pid"), flush=True)
            signal.pause()
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as run:
        init, name, namespace = run.stdout.readline().split()
        pidfd = os.pidfd_open(int(init))
        run.send_signal(signal.SIGKILL)
    # The keeper notices by itself; its last act is to remove the cgroups.
    ended, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    assert ended, "systemd is still there"
    deadline = time.monotonic() + 10
    while cgroups_of(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cgroups_of(name) == []
    assert processes_of(namespace) == []
