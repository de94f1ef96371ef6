"""Running a command of the configuration on a database: the smoke test, the rebuild script."""

from __future__ import annotations

import os
import pwd
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from scpln_backup.errors import CommandError, StoppedError
from scpln_backup.support import command, files
from scpln_backup.support.text import human_duration

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from datetime import datetime

_ROOT = 0
_LAST_BYTES = 4096
_SHOWN = 200


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """A command as the configuration has it. `what` is its name in messages ("the smoke test")."""

    what: str
    argv: tuple[str, ...]
    directory: str
    timeout_seconds: float


class Ran(msgspec.Struct, frozen=True):
    """`error` is None when it succeeded, `exit_code` when it was ended for its time. `problems` are lesser failures."""

    exit_code: int | None
    error: str | None
    problems: tuple[str, ...]


def run(
    configured: Configured,
    *,
    database: Path,
    user: str | None,
    output: Path,
    cancel: threading.Event,
    hold: Sequence[int] = (),
) -> Ran:
    """Run the command with SCPLN_DB set to `database`; see `support.command.run_to_end`.

    Raises CommandError when it cannot be started, StoppedError once `cancel` is set.
    """
    result = command.run_to_end(
        configured.argv,
        directory=Path(configured.directory),
        env=command.environment(SCPLN_DB=str(database)),
        timeout_seconds=configured.timeout_seconds,
        output=output,
        cancel=cancel,
        user=user,
        hold=hold,
    )
    what = configured.what
    if result.cancelled:
        raise StoppedError(f"{what} was interrupted after {human_duration(result.seconds)}; its output: {output}")
    error = None
    if result.timed_out:
        limit = human_duration(configured.timeout_seconds)
        error = f"{what} had not ended after {limit}, and was ended with all it had started; its output: {output}"
    elif result.exit_code != 0:
        last = _last_line(output)
        error = f"{what} failed with exit code {result.exit_code}{': ' + last if last else ''}; its output: {output}"
    return Ran(result.exit_code, error, tuple(f"{what}: {problem}" for problem in result.problems))


def output_file(folder: Path, prefix: str, at: datetime, configured: Configured, note: str) -> Path:
    """The new file `folder/PREFIX-YYYYmmdd_HHMMSS.log` (0600), begun with what is run."""
    if not folder.is_dir():
        files.make_folder(folder)
        _owned_like_parent(folder)
    path = folder / f"{prefix}-{at:%Y%m%d_%H%M%S}.log"
    with suppress(FileExistsError):  # autumn's repeated hour: both go into one file
        files.create_empty(path)
    first = f"# {at.isoformat(timespec='seconds')}  {note}: {shlex.join(configured.argv)}  in {configured.directory}\n"
    with _opened(path, os.O_WRONLY | os.O_APPEND) as file:
        file.write(os.fsencode(first))
    return path


def owner(database: Path) -> str | None:
    """Whom root runs a command as: the database's owner, whom root's files would lock out. None for the caller.

    Raises CommandError when that user has no account.
    """
    if os.geteuid() != _ROOT:
        return None
    uid = next((path.stat().st_uid for path in (database, database.parent) if path.exists()), _ROOT)
    if uid == _ROOT:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        msg = f"{database}: belongs to uid {uid}, which is no user here, so no command can run as its owner; chown it"
        raise CommandError(msg) from None


def _owned_like_parent(folder: Path) -> None:
    if os.geteuid() == _ROOT:
        status = folder.parent.stat()
        os.chown(folder, status.st_uid, status.st_gid, follow_symlinks=False)


def _opened(path: Path, flags: int) -> BinaryIO:
    # Root must not write to, or read from, whatever the folder's owner puts a link to.
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC), "rb" if flags == os.O_RDONLY else "ab")


def _last_line(output: Path) -> str:
    """The last line that says anything: what went wrong, more often than not."""
    with _opened(output, os.O_RDONLY) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
        text = file.read().decode(errors="replace")
    lines = ["".join(letter for letter in line if letter.isprintable()).strip() for line in text.splitlines()]
    return next((line[:_SHOWN] for line in reversed(lines) if line and not line.startswith("# ")), "")
