"""What a box is made of, built once and cached: a Debian root file system, and the program's libraries.

The cache is $SCPLN_BACKUP_TEST_CACHE, else ~/.cache/scpln-backup-tests. Every entry is named after a hash
of what it is made from and appears whole or not at all; one lock lets test runs in parallel share it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PYTHON_OF_SUITE = "3.11"
PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "procps",  # /bin/kill, which ExecReload= runs
    "python3",
    "sqlite3",
    "systemd",
    "systemd-sysv",
)
# These reach for the host's kernel, which is no business of a box.
MASKED = (
    "dev-hugepages.mount",
    "modprobe@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)
# Run by mmdebstrap with $1 set to the root: what a minimal Debian lacks, and the application's own user.
HOOKS = (
    'printf "127.0.0.1 localhost\\n::1 localhost\\n" >"$1/etc/hosts"',
    'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',  # mmdebstrap takes them from the host
    'chroot "$1" useradd --system --user-group --home-dir /opt/scpln --create-home scpln',
    # An empty machine-id is filled in at boot; "uninitialized" would make every boot a first boot.
    ': >"$1/etc/machine-id"',
    f'chroot "$1" systemctl --quiet mask {" ".join(MASKED)}',
)


class PartError(Exception):
    """A part of the box could not be built; the message ends with the builder's own words."""


def cache_folder() -> Path:
    named = os.environ.get("SCPLN_BACKUP_TEST_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "scpln-backup-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def root_file_system() -> Path:
    """A Debian with systemd in it; about 25 s and 250 MB the first time."""

    def build(folder: Path) -> None:
        hooks = [f"--customize-hook={hook}" for hook in HOOKS]
        include = f"--include={','.join(PACKAGES)}"
        _run(["mmdebstrap", "--quiet", "--variant=minbase", include, *hooks, SUITE, str(folder)])

    return _cached("root", (SUITE, *PACKAGES, *HOOKS), build)


def libraries() -> Path:
    """What requirements.lock names, for the suite's own Python, whatever this virtual environment's is."""
    lock = CHECKOUT / "packaging" / "requirements.lock"

    def build(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        exact = ["--require-hashes", "--no-deps", "--no-build-isolation", "--use-pep517"]
        target = ["--target", str(folder), "--python-version", PYTHON_OF_SUITE]
        _run([*pip, *exact, *target, "--requirement", str(lock)])

    return _cached("libraries", (PYTHON_OF_SUITE, lock.read_text(encoding="utf-8")), build)


def _cached(kind: str, made_from: tuple[str, ...], build: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256("\0".join(made_from).encode()).hexdigest()
    entry = cache_folder() / f"{kind}-{digest[:16]}"
    with _locked():
        if not entry.exists():
            for abandoned in cache_folder().glob("building-*"):
                shutil.rmtree(abandoned)
            scratch = Path(tempfile.mkdtemp(prefix="building-", dir=cache_folder()))
            # mkdtemp's 0700 would become the mode of the box's / and lock every service user out.
            scratch.chmod(0o755)
            build(scratch)
            scratch.rename(entry)
    return entry


@contextmanager
def _locked() -> Iterator[None]:
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise PartError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:].strip()}")
