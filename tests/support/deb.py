"""The Debian package: built from a copy of this checkout, and a host that it is installed on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup import __version__
from scpln_backup.records.schema import VERSION
from support.application import ApplicationHost
from support.box_parts import CHECKOUT, cache_folder

if TYPE_CHECKING:
    from support.systemd_box import SystemdBox

# What the package is made from; the rest of a checkout is for working on it.
SOURCES = ("CHANGELOG.md", "README.ja.md", "README.md", "config.example.toml", "daemon", "docs", "packaging", "systemd")
TOOLS = {"dh": "debhelper", "dpkg-gencontrol": "dpkg-dev", "lintian": "lintian"}
NEWER = "99.0.0"
INSTALL = ("env", "DEBIAN_FRONTEND=noninteractive")


def why_impossible() -> str | None:
    """The plain reason why no package can be built and looked at here, or None."""
    missing = sorted(package for command, package in TOOLS.items() if shutil.which(command) is None)
    return f"Debian packages are missing: {' '.join(missing)}" if missing else None


class Sources:
    """A copy of the checkout, which nobody changes during a build."""

    def __init__(self, folder: Path, original: Path = CHECKOUT) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in SOURCES:
            if (original / name).is_dir():
                shutil.copytree(original / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(original / name, folder)

    def begin_build(self, output: Path, *, umask: int = 0o022) -> subprocess.Popen[str]:
        """packaging/build-deb.sh, under way; it prints the package's path."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(Path.home()),
            "PYTHON": sys.executable,
            "SCPLN_BACKUP_DEB_CACHE": str(cache_folder() / "deb"),
        }
        command = [str(self.folder / "packaging/build-deb.sh"), str(output)]
        return subprocess.Popen(
            command, env=environment, umask=umask, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


def built(process: subprocess.Popen[str]) -> Path:
    """The package that a build ends with; AssertionError with what it said."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return Path(said.splitlines()[-1])


def newer(package: Path, folder: Path) -> tuple[Path, Path]:
    """As a later release might be: of another version, with one more step in the catalog's history.

    The second one of the two cannot be unpacked: it has a file that belongs to the package sqlite3.
    """
    inside = folder / "inside"
    subprocess.run(["dpkg-deb", "--raw-extract", package, inside], check=True)
    program = inside / "usr/lib/scpln-backup/scpln_backup"
    _replace(inside / "DEBIAN/control", f"Version: {__version__}\n", f"Version: {NEWER}\n")
    _replace(inside / "DEBIAN/preinst", f"KNOWN={VERSION}\n", f"KNOWN={VERSION + 1}\n")
    _replace(program / "__init__.py", f'"{__version__}"', f'"{NEWER}"')
    step = '    ("CREATE TABLE of_a_newer_version (x)",),\n)\nVERSION = '
    _replace(program / "records/schema.py", ")\nVERSION = ", step)
    good = _packed(inside, folder / f"scpln-backup_{NEWER}.deb")
    (inside / "usr/bin/sqlite3").touch()
    return good, _packed(inside, folder / "clashing.deb")


def _packed(inside: Path, package: Path) -> Path:
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", inside, package], check=True)
    return package


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has not exactly one {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


class PackagedHost(ApplicationHost):
    """A host that nothing of scpln-backup is on yet, with the application's files; `box` is without the program."""

    def __init__(self, box: SystemdBox) -> None:
        super().__init__(box)
        box.run("sh", "-c", "rm -r /etc/systemd/system/scpln-backup*; systemctl daemon-reload")

    def copy_in(self, package: Path) -> str:
        """The package's path in the box."""
        shutil.copy(package, self.box.path("/root"))
        return f"/root/{package.name}"

    def install(self, package: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Install or upgrade as unattended as can be: whatever asked a question would fail."""
        return self.box.run(*INSTALL, "dpkg", "--install", self.copy_in(package), check=check)

    def bring_database(self) -> None:
        """The application's installation, as far as the database is concerned."""
        self.box.run("install", "-d", "-o", "scpln", "-g", "scpln", "/opt/scpln", "/opt/scpln/data")
        self.box.path("/opt/scpln/data/scpln.db").write_bytes((CHECKOUT / "tests/data/scpln-sample.db").read_bytes())
        self.box.run("chown", "scpln:scpln", "/opt/scpln/data/scpln.db")
        self.box.write("/opt/scpln/.env", "REGISTRY_BACKEND=db\n")

    def edit_config(self, **settings: str) -> None:
        """Take the # away from keys of the shipped configuration and change them, as an operator does."""
        for key, value in settings.items():
            self.box.run("sed", "-i", f"s|^#{key} = .*|{key} = {value}|", "/etc/scpln-backup/config.toml")
