"""Who runs this program."""

from __future__ import annotations

import getpass
import os


def current_user() -> str:
    """Who asked: the person behind sudo, if there is one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"#{os.geteuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (as {user})" if behind else user
