"""The user that the daemon runs as, and trying what that user may do."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROOT = 0


class Account(msgspec.Struct, frozen=True):
    """`groups` are all of the user's, as a process of its gets them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def __str__(self) -> str:
        return self.name


def account(user: str | int) -> Account:
    """By name, or by number (as text too), which need not have a name. BackupError: there is no such user."""
    try:
        number = int(user)
    except ValueError:
        number = None
    try:
        found = pwd.getpwnam(str(user)) if number is None else pwd.getpwuid(number)
    except KeyError:
        if number is None:
            raise BackupError(f"there is no user {user}, whom the unit runs as; make it: adduser --system") from None
        return Account(f"#{number}", number, number, (number,))
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups))


@contextmanager
def acting_as(user: Account) -> Iterator[None]:
    """Be `user` to the file system while the context lasts: what succeeds in it succeeds for the daemon.

    Trying tells more than owner and mode do: there are ACLs, read-only mounts and security modules. Only in a process
    of one thread. BackupError: this is another user, and not root.
    """
    if os.geteuid() == user.uid:
        yield
        return
    if os.geteuid() != _ROOT:
        me = account(os.geteuid())
        raise BackupError(f"this runs as {me}, and only {user} and root can tell what {user} may do")
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(user.groups)
        os.setegid(user.gid)
        os.seteuid(user.uid)
        yield
    finally:
        os.seteuid(_ROOT)
        os.setegid(gid)
        os.setgroups(groups)


def may(path: Path, mode: int) -> bool:
    """access(2) for the user of the moment (the effective one), read-only mounts included."""
    return os.access(path, mode, effective_ids=True)
