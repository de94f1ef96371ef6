"""A checked copy of an artifact's database, anywhere but in the live one's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.errors import RestoreRefusedError, from_os
from scpln_backup.operations.restore import plan
from scpln_backup.operations.restore.content import unpack_checked
from scpln_backup.support import files

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from scpln_backup.model import Artifact
    from scpln_backup.operations.house import House


def write_copy(house: House, artifact: Artifact, path: Path, allowed: plan.Allowed, cancel: threading.Event) -> None:
    """Write the new file `path`, whole or not at all; nothing else is touched. Never overwrites."""
    plan.require_sound(artifact, allowed)
    path = path.absolute()
    if path.exists():
        raise RestoreRefusedError(f"{path}: there is a file already, and it is not overwritten; name another one")
    needed, free = plan.room(artifact, path)
    if free < needed:
        raise RestoreRefusedError(f"{path.parent}: not enough room: {free} bytes free, {needed} needed")
    part = path.with_name(files.temporary_name(path.name))
    try:
        unpack_checked(house, artifact, part, cancel)
        files.publish(part, path)
        files.fsync_directory(path.parent)
    except OSError as error:
        raise from_os(error) from error
    finally:
        part.unlink(missing_ok=True)
