"""Peers that are no Debian packages: fetched once into .cache/bench, from PyPI by hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_VENV = _ROOT / ".cache" / "bench"
_PIP = ("-qq", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary", ":all:", "--require-hashes")
_LIST = Path(__file__).with_name("requirements.txt")


def bring() -> str | None:
    """Put the peers' programs on PATH; return why some are not to be had, None when all are."""
    problem = None
    if not (_VENV / "bin" / "litestream").exists():
        problem = _install()
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], str(_VENV / "bin")))
    return None if shutil.which("litestream") else problem


def _install() -> str | None:
    steps = (
        [str(_ROOT / "packaging" / "bootstrap.sh"), sys.executable, str(_VENV)],
        [str(_VENV / "bin" / "python"), "-m", "pip", "install", *_PIP, "-r", str(_LIST)],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["it cannot be installed"])[-1]
    return None
