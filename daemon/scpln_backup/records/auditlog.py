r"""The audit log's lines: one JSON object each (JSON Lines, UTF-8), chained by their hashes.

The members of a line, in this order:

| member | what it is |
|---|---|
| `seq` | 1, 2, …; goes on when the file is rotated |
| `at` | when it happened, ISO 8601 with offset |
| `event` | what happened: one of `Kind` |
| `actor` | who made it happen: `daemon`, a user, `akira (as root)` |
| `database`, `environment`, `host` | whose, and on which machine |
| … | the facts of the event, flat |
| `chain` | the name of this chain: two installations may write to one file |
| `catalog`, `entry` | the entry of the catalog's outbox it was made from; `""` and 0 when it could not be kept there |
| `file` | only in a file's first line: how many files of this chain there were, with this one |
| `foreign_bytes`, `foreign_sha256` | only after text of somebody else's: how much of it stands between the line of this chain before (or the beginning of the file) and this one, and its sha256 |
| `head` | only as "lost": the note of the chain's end was gone when this line was written, so that it vouches for nothing that may have been removed before it |
| `prev` | the `hash` of the line before; 64 zeros in the very first |
| `hash` | the sha256 of this line without `,"hash":"…"` and without its newline |

So that an auditor can check line 12 without this program:

    sed -n 12p backup.log | sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum   # its "hash"
    sed -n 11p backup.log | jq -r .hash                                                       # its "prev"

No line is longer than MAX_LINE bytes: long texts are cut, and end in CUT.
"""  # noqa: E501 - a table's rows are lines

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.records.rows import storable

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE = 4096
CUT = " … (cut)"
NOTHING_BEFORE = "0" * 64
BEGINNING = b'{"seq":'
LOST = "lost"

_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')
# Tried in turn until a line is short enough; the last one is short enough for any line of ours.
_TEXT_LIMITS = (1000, 400, 150, 50)
_LINKS = ("chain", "catalog", "entry", "file", "foreign_bytes", "foreign_sha256", "head", "prev", "hash")
_OWN = frozenset(("seq", "at", "event", "actor", "database", "environment", "host", *_LINKS))


class Kind(StrEnum):
    """What happened: the vocabulary of `event`. A name stays for ever; new ones may come."""

    RUN_FINISHED = "run_finished"
    ARTIFACT_DELETED = "artifact_deleted"
    ARTIFACT_VERIFIED = "artifact_verified"
    ARTIFACT_PINNED = "artifact_pinned"
    ARTIFACT_UNPINNED = "artifact_unpinned"
    BACKUP_REQUESTED = "backup_requested"
    EVENT_UNREADABLE = "event_unreadable"
    SHRINK_ACCEPTED = "shrink_accepted"
    RETENTION_FROZEN = "retention_frozen"
    RESTORE_STARTED = "restore_started"
    RESTORE_FINISHED = "restore_finished"
    REBUILD_FINISHED = "rebuild_finished"
    INCIDENT_OPENED = "incident_opened"
    INCIDENT_OVERDUE = "incident_overdue"
    INCIDENT_CLOSED = "incident_closed"
    DRILL_FINISHED = "drill_finished"
    BACKUP_OVERDUE = "backup_overdue"
    REVIEW_MADE = "review_made"
    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPED = "daemon_stopped"
    SERVICE_FAILED = "service_failed"
    CONFIG_RELOADED = "config_reloaded"
    CONFIG_REFUSED = "config_refused"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a line is to tell. `facts` are texts, numbers and truth values; None is left out.

    `fact` tells one fact from another, for those that come from no outbox: the same one is written once.
    """

    at: datetime
    actor: str
    event: str
    facts: Mapping[str, Any]
    catalog: str = ""
    entry: int = 0
    fact: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line whose hash is right: what it says is what was written when the hash was made."""

    seq: int
    at: datetime
    event: str
    actor: str
    database: str
    environment: str
    host: str
    facts: dict[str, Any]
    chain: str
    catalog: str
    entry: int
    prev: str
    hash: str
    file: int | None = None
    foreign_bytes: int = 0
    foreign_sha256: str | None = None
    head: str | None = None


def sealing(digest: str) -> bytes:
    """How a line with the hash `digest` ends, the newline included."""
    return f',"hash":"{digest}"}}\n'.encode()


def compose(record: Record, place: Mapping[str, Any], links: Mapping[str, Any]) -> tuple[bytes, str]:
    """The line of a record, with its newline, and its hash.

    `place` is database, environment and host; `links` has `seq` and what comes after the facts.
    """
    for limit in _TEXT_LIMITS:
        facts = {name: _cut(value, limit) for name, value in record.facts.items() if value is not None}
        told = {"at": record.at.isoformat(), "event": record.event, "actor": _cut(record.actor, limit)}
        body = msgspec.json.encode({"seq": links["seq"], **told, **place, **facts, **links})
        digest = hashlib.sha256(body).hexdigest()
        whole = body[:-1] + sealing(digest)
        if len(whole) <= MAX_LINE:
            break
    return whole, digest


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        return value
    text = storable(value)
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def parse(raw: bytes) -> Line | None:
    """The line that `raw` (without its newline) is; None when it is not one, or not as it was written."""
    found = _SEAL.search(raw)
    if found is None or not raw.startswith(BEGINNING):
        return None
    digest = found[1].decode()
    if hashlib.sha256(raw[: found.start()] + b"}").hexdigest() != digest:
        return None
    try:
        members = msgspec.json.decode(raw, type=dict[str, Any])
        own = {name: members[name] for name in _OWN if name in members}
        facts = {name: value for name, value in members.items() if name not in _OWN}
        return msgspec.convert(own | {"facts": facts}, Line)
    except msgspec.MsgspecError:  # sealed by somebody else, or by a version to come
        return None
