"""Folders that other programs worked in, and their end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_ALL_MINE = 0o700


def remove(folder: Path) -> None:
    """Remove a folder and all in it, where permissions were taken away too. One that is not there is fine.

    No link is followed. Raises OSError for what cannot be removed all the same.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        # Without write permission on a folder its owner cannot empty it (tests like to make such folders).
        folder.chmod(_ALL_MINE)
        for parent, names, _ in os.walk(folder):
            for name in names:
                child = Path(parent, name)
                if not child.is_symlink():
                    child.chmod(_ALL_MINE)
        shutil.rmtree(folder)
