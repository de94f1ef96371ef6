"""Which artifact an unchanged night may use again."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from scpln_backup import __version__
from scpln_backup.model import State
from scpln_backup.operations.problems import noted
from scpln_backup.stages.reuse import Older

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from scpln_backup.config.schema import BackupConfig
    from scpln_backup.model import Artifact
    from scpln_backup.stores.local import LocalStore

# Shorter than a week by what a run may begin earlier than the last.
_CHECKED_EVERY = timedelta(days=6, hours=12)
PROGRAM = f"scpln-backup {__version__}"


def reusable(artifacts: Sequence[Artifact], config: BackupConfig, now: datetime) -> Artifact | None:
    """The newest verified artifact, if a run of today would compress and check the same database in the same way.

    `artifacts` are newest first. Who changes the compression or the preset, or installs another version of the program
    or of SQLite, gets an artifact of those, and after a week of unchanged nights one is checked in full again. One of
    the old procedure has no preset, and never is used again.
    """
    newest = next((artifact for artifact in artifacts if artifact.state is State.VERIFIED), None)
    if newest is None or newest.manifest is None:
        return None
    made = newest.manifest
    today = (config.compression, config.preset, PROGRAM, sqlite3.sqlite_version)
    same = (made.compression, made.preset, made.program, made.sqlite) == today
    checked = made.checked_at is not None and abs(now - made.checked_at) < _CHECKED_EVERY
    return newest if same and checked else None


@contextmanager
def held(store: LocalStore, artifact: Artifact | None, problems: list[str]) -> Iterator[Older | None]:
    """The artifact for the worker, kept from deletion while the context lasts.

    None for none, and for one that cannot be opened, which is noted among `problems`.
    """
    manifest = artifact.manifest if artifact is not None else None
    with ExitStack() as stack:
        older = None
        if artifact is not None and manifest is not None and manifest.fingerprint is not None:
            with noted(problems):
                stack.enter_context(store.reading(artifact.name))
                older = Older(
                    path=artifact.path,
                    compression=manifest.compression,
                    bytes=manifest.bytes,
                    sha256=manifest.sha256,
                    fingerprint=manifest.fingerprint,
                )
        yield older
