"""Run as a script: keep one box, a systemd as PID 1 of namespaces of its own, until standard input ends.

The caller holds the other end of standard input, so the box goes when the caller ends it and also when
the caller dies, however that happens; should this process be killed, the kernel kills the box
(PR_SET_PDEATHSIG). Standard output says `init PID` once there is a process, and `ready` once systemd has
finished starting. Standard library only: it runs before and without any virtual environment's packages.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

# From <sched.h>, <sys/mount.h> and <sys/prctl.h>.
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1

CGROUP_BASE = Path("/sys/fs/cgroup")
NAME_PREFIX = "scpln-box-"
NOTIFY_SOCKET = "/run/host/notify"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What is the host's own and must not be changed from inside; systemd-sysctl would.
HOST_OWNED = ("proc/sys", "proc/sysrq-trigger")

libc = ctypes.CDLL(None, use_errno=True)


class Hierarchy(NamedTuple):
    """One cgroup mount of the host: a v1 controller's, or the unified one."""

    mountpoint: Path
    kind: str
    options: str


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(kind: str | None, source: str | None, target: Path | str, flags: int = 0, options: str = "") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, str(target), kind)]
    checked(libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options)), f"mount {kind} on {target}")


def bind(source: Path | str, target: Path, *, read_only: bool) -> None:
    mount(None, str(source), target, MS_BIND | MS_REC)
    if read_only:
        mount(None, None, target, MS_REMOUNT | MS_BIND | MS_RDONLY)


def hierarchies() -> list[Hierarchy]:
    """The host's cgroup mounts below /sys/fs/cgroup, on a unified, hybrid or legacy host (cgroups(7))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        place, _, source = line.partition(" - ")
        mountpoint = Path(place.split()[4])
        kind, _, options = source.split()
        if kind in {"cgroup", "cgroup2"} and mountpoint.is_relative_to(CGROUP_BASE):
            kept = [word for word in options.split(",") if word not in {"rw", "ro", "xattr", "nsdelegate"}]
            named = any(word.startswith("name=") for word in kept)
            v1_options = ",".join(["none", *kept] if named else kept)
            found.append(Hierarchy(mountpoint, kind, v1_options if kind == "cgroup" else ""))
    return found


def make_cgroups(name: str, among: list[Hierarchy]) -> list[Path]:
    made = []
    for hierarchy in among:
        cgroup = hierarchy.mountpoint / name
        cgroup.mkdir()
        made.append(cgroup)
        # A new v1 cpuset is empty, and no process may enter it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if hierarchy.kind == "cgroup" and (cgroup / setting).exists():
                (cgroup / setting).write_bytes((hierarchy.mountpoint / setting).read_bytes())
    return made


def remove_cgroups(cgroups: list[Path], deadline_seconds: float) -> None:
    """Remove the trees, which the kernel allows a moment after their last process has gone."""
    deadline = time.monotonic() + deadline_seconds
    while True:
        for cgroup in cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    continue  # still populated: the next round, or the caller's error below
        left = [str(cgroup) for cgroup in cgroups if cgroup.exists()]
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroups still there after {deadline_seconds} s: {left}")
        time.sleep(0.02)


def sweep_abandoned(among: list[Hierarchy]) -> None:
    """Remove the empty cgroups of keepers that were killed before they could do it."""
    for hierarchy in among:
        for cgroup in hierarchy.mountpoint.glob(f"{NAME_PREFIX}*"):
            keeper = cgroup.name.removeprefix(NAME_PREFIX)
            if not Path("/proc", keeper).exists():
                remove_cgroups([cgroup], deadline_seconds=5)


def lay_out(stage: Path, lower: str, binds: dict[str, str], among: list[Hierarchy]) -> Path:
    """Mount the box's file system on `stage`, writable on a tmpfs of its own, and return its root."""
    mount("tmpfs", "box", stage, 0, "mode=755")
    upper, work, root = stage / "upper", stage / "work", stage / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    mount("overlay", "box", root, 0, f"lowerdir={lower},upperdir={upper},workdir={work}")

    mount("proc", "proc", root / "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in HOST_OWNED:
        if (root / path).exists():
            bind(root / path, root / path, read_only=True)
    mount("sysfs", "sysfs", root / "sys", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    lay_out_cgroups(root, among)
    lay_out_devices(root / "dev")
    mount("tmpfs", "run", root / "run", MS_NOSUID | MS_NODEV, "mode=755")
    (root / "run/host").mkdir()

    for target, source in binds.items():
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        bind(source, place, read_only=True)
    return root


def lay_out_cgroups(root: Path, among: list[Hierarchy]) -> None:
    unified = any(hierarchy.mountpoint == CGROUP_BASE for hierarchy in among)
    if not unified:
        mount("tmpfs", "cgroup", root / "sys/fs/cgroup", MS_NOSUID | MS_NODEV, "mode=755")
    for hierarchy in among:
        place = root / str(hierarchy.mountpoint).lstrip("/")
        place.mkdir(exist_ok=True)
        mount(hierarchy.kind, hierarchy.kind, place, MS_NOSUID | MS_NODEV | MS_NOEXEC, hierarchy.options)


def lay_out_devices(dev: Path) -> None:
    mount("tmpfs", "dev", dev, MS_NOSUID, "mode=755")
    for name in DEVICES:
        (dev / name).touch()
        bind(Path("/dev", name), dev / name, read_only=False)
    (dev / "pts").mkdir()
    mount("devpts", "devpts", dev / "pts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=620,gid=5")
    (dev / "shm").mkdir()
    mount("tmpfs", "shm", dev / "shm", MS_NOSUID | MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        (dev / name).symlink_to(target)


def become_init(box: dict[str, str], binds: dict[str, str], cgroups: list[Path], notify: socket.socket) -> NoReturn:
    """Turn this process, the first of its PID namespace, into the box's systemd."""
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    among = hierarchies()
    # Into the cgroups first: a cgroup namespace has its root where the process is when it is made.
    for cgroup in cgroups:
        (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
    mount(None, None, "/", MS_REC | MS_PRIVATE)
    root = lay_out(Path(box["stage"]), box["root"], binds, among)
    socket.sethostname(box["name"])

    os.chdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")
    # systemd does this itself only outside containers; without it what LoadCredential= mounts stays empty.
    mount(None, None, "/", MS_REC | MS_SHARED)
    notify.bind(NOTIFY_SOCKET)

    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    systemd = "/lib/systemd/systemd"
    environment = {
        "container": "scpln-box",
        "NOTIFY_SOCKET": NOTIFY_SOCKET,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    os.execve(systemd, [systemd, "--log-target=journal", "--show-status=no"], environment)


def watch(init: int, notify: socket.socket) -> None:
    """Say `ready` when systemd does; return when standard input or the box ends."""
    ended = os.pidfd_open(init)
    while True:
        readable, _, _ = select.select([sys.stdin, ended, notify], [], [])
        if notify not in readable:
            return
        if b"READY=1" in notify.recv(4096).split(b"\n"):
            print("ready", flush=True)


def main() -> None:
    box: dict[str, str] = json.loads(sys.argv[1])
    binds: dict[str, str] = json.loads(sys.argv[2])
    among = hierarchies()
    sweep_abandoned(among)
    name = f"{NAME_PREFIX}{os.getpid()}"
    cgroups = make_cgroups(name, among)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # Only the next child is in the new PID namespace: as its PID 1.
    checked(libc.unshare(CLONE_NEWPID), "unshare")
    init = os.fork()
    if init == 0:
        become_init({**box, "name": name}, binds, cgroups, notify)
    print(f"init {init}", flush=True)
    try:
        watch(init, notify)
    finally:
        # The death of its init kills every process of a PID namespace, and the mounts go with the last one.
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)
        remove_cgroups(cgroups, deadline_seconds=10)


if __name__ == "__main__":
    main()
