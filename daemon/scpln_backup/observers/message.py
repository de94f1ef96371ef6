"""A message to people, before any service has formatted it."""

from __future__ import annotations

from datetime import (
    datetime,  # noqa: TC003 - msgspec reads the annotations at run time
    tzinfo,  # noqa: TC003 - as above
)

import msgspec

from scpln_backup.config.schema import Locale  # noqa: TC001 - as above
from scpln_backup.model import (  # noqa: TC001 - as above
    Artifact,
    RunRecord,
    Severity,
)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Text in one language; nothing in it is a secret or a row of the database.

    `headline` is one line that says it all and names the database and the environment. `sentences` say more, and what
    to do. `facts` are label and value, in order. `listing` is preformatted text, as `ls -lh | tail` prints it.
    `document` is Markdown of any length (a report, a review).
    `over`: it tells that something is over (a recovery).
    """

    headline: str
    severity: Severity
    sentences: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    listing: str | None = None
    document: str | None = None
    over: bool = False


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a message tells beside its event, as it is when the message is written.

    `artifacts`: newest first, a dozen at the most. `runs`: the last finished ones, newest first. `page` is the address
    of the status page, `host` this machine's name.
    """

    database: str
    environment: str
    host: str
    root: str
    locale: Locale
    zone: tzinfo
    now: datetime
    artifacts: tuple[Artifact, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    next_run_at: datetime | None = None
    page: str | None = None
