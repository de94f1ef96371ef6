"""What an artifact is called, and what a name says.

`scpln-20261122_0230.db.gz`: the database, the local time, how it is compressed. The pattern is the one of the
procedure's section 2, so that its `find … -name 'scpln-*.db.gz'` and this program see the same files.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import tzinfo

_TIME = re.compile(r"(?P<minute>\d{8}_\d{4})(?P<second>\d{2})?(?:-\d+)?", re.ASCII)


def artifact_name(database: str, at: datetime, compression: Compression, taken: Container[str]) -> str:
    """The name of an artifact of `database` whose snapshot was taken `at` (aware, in the local zone).

    A second one in the same minute gets the seconds, a third in the same second a number from 2 on: two
    signals, or the repeated hour in autumn, never lead to a name in `taken`.
    """
    suffix = compression.suffix
    by_minute = f"{database}-{at:%Y%m%d_%H%M}{suffix}"
    if by_minute not in taken:
        return by_minute
    stem = f"{database}-{at:%Y%m%d_%H%M%S}"
    if f"{stem}{suffix}" not in taken:
        return f"{stem}{suffix}"
    numbered = (f"{stem}-{number}{suffix}" for number in count(2))
    return next(name for name in numbered if name not in taken)


def is_artifact(database: str, filename: str) -> bool:
    """Whether `find -name 'DATABASE-*.db.gz'` (or `.db.zst`) matches, the database's name taken literally.

    `*` also stands for nothing and for what is no time, so a match says "ours to list and to sweep", not that
    `taken_at` can be told from the name.
    """
    return filename.startswith(f"{database}-") and filename.endswith(tuple(c.suffix for c in Compression))


def taken_at(database: str, filename: str, zone: tzinfo) -> datetime | None:
    """When the snapshot was taken, as the name tells it: aware, in `zone`, to the minute or the second.

    None if the name does not say (not an artifact, no time in it, an impossible date). A time in autumn's
    repeated hour is read as the first of the two; the manifest knows better.
    """
    if not is_artifact(database, filename):
        return None
    time = _TIME.fullmatch(filename[len(database) + 1 : -len(compression_of(filename).suffix)])
    if time is None:
        return None
    try:
        wall = datetime.strptime(f"{time['minute']}{time['second'] or '00'}", "%Y%m%d_%H%M%S").replace(tzinfo=zone)
        # By way of UTC, so that a time in spring's missing hour (the zone was another one then) is a real one.
        return wall.astimezone(UTC).astimezone(zone)
    except (ValueError, OverflowError):
        return None


def compression_of(filename: str) -> Compression:
    """How the artifact is compressed, by its name; ArtifactError for a name no artifact has."""
    for compression in Compression:
        if filename.endswith(compression.suffix):
            return compression
    endings = " or ".join(c.suffix for c in Compression)
    raise ArtifactError(f"{filename}: not the name of an artifact: it ends in {endings}")
