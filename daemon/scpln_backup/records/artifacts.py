"""The index of artifacts in the catalog, for those who must not read thousands of manifests to show a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.model import Artifact, State
from scpln_backup.records.access import Access
from scpln_backup.records.times import from_micros

if TYPE_CHECKING:
    import sqlite3

_NEWEST = """
SELECT name, path, taken_at, modified_at, bytes, raw_bytes, state, pinned FROM artifacts
WHERE deleted_at IS NULL ORDER BY taken_at DESC, name DESC LIMIT ?
"""


class ArtifactIndex(Access):
    """A reader of the catalog at `path`, as of the last `sync_artifacts`."""

    def newest(self, limit: int) -> list[Artifact]:
        """The newest `limit` artifacts that are there, newest first, in the order of a store's scan."""

        def question(connection: sqlite3.Connection) -> list[Artifact]:
            return [
                Artifact(
                    name=name,
                    path=path,
                    taken_at=from_micros(taken_at, self.zone),
                    modified_at=from_micros(modified_at, self.zone),
                    bytes=size,
                    state=State(state),
                    raw_bytes=raw_bytes,
                    pinned=bool(pinned),
                )
                for name, path, taken_at, modified_at, size, raw_bytes, state, pinned in connection.execute(
                    _NEWEST, (limit,)
                )
            ]

        return self._read(question, [])
