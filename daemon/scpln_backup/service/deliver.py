"""The process that takes what waits to one channel, and ends: `python -m scpln_backup.service.deliver PARENT`.

A process of its own, because a service may hang in any way it likes (a connection that drips a byte a minute, a name
server that never answers), which no time limit of a library covers: SIGALRM ends this one. The clients' libraries, of
which Jira's alone takes as much memory as the whole daemon, go with it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time

import msgspec

from scpln_backup import events
from scpln_backup.app import App
from scpln_backup.config.schema import Config  # noqa: TC001 - as above
from scpln_backup.errors import BackupError, CatalogError, DeliveryError, LockHeldError, SecretError
from scpln_backup.events import TestMessage
from scpln_backup.observers.courier import LETTER_LIMIT_SECONDS, note_failure, wait_seconds
from scpln_backup.observers.log import handler
from scpln_backup.operations.house import DAEMON
from scpln_backup.records.outbox import Cause, Entry
from scpln_backup.records.values import encodable
from scpln_backup.support.command import die_with_parent
from scpln_backup.support.secrets import DIRECTORY
from scpln_backup.support.text import one_line

log = logging.getLogger(__name__)

_LOCK_WAIT_SECONDS = 10.0


class LooseEntry(msgspec.Struct, frozen=True):
    """An entry that is in no catalog, on its way to this process."""

    kind: str
    at: datetime
    actor: str
    payload: msgspec.Raw

    @classmethod
    def of(cls, entry: Entry) -> LooseEntry:
        payload = msgspec.Raw(msgspec.json.encode(encodable(entry.event)))
        return cls(type(entry.event).__name__, entry.at, entry.actor, payload)

    def entry(self) -> Entry:
        event = msgspec.json.decode(self.payload, type=getattr(events, self.kind))
        return Entry(id=0, at=self.at, actor=self.actor, event=event)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force, which need not be the one on disk, and what to deliver.

    `loose` entries, else a test message in the name of `test_by`, else what waits in the outbox.
    """

    config: Config
    channel: str
    actor: str
    loose: list[LooseEntry] = []
    causes: dict[str, Cause] = {}
    doubtful: bool = False
    test_by: str | None = None


class Result(msgspec.Struct, frozen=True):
    """`error`: why what is loose did not get through; what waits in the outbox is noted there.

    `causes`: those that the channel has told of after what was loose. `unsure`: it may have arrived all the same.
    `wait_seconds`: how long the channel is to be left alone.
    """

    error: str | None = None
    causes: dict[str, Cause] = {}
    unsure: bool = False
    wait_seconds: float = 0.0


def main() -> None:
    die_with_parent()
    logging.basicConfig(handlers=[handler(os.environ, sys.stderr)], level=logging.WARNING)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    sys.stdout.buffer.write(msgspec.json.encode(deliver(request)) + b"\n")


def deliver(request: Request) -> Result:
    """Do what is asked; every failure is noted or in the result."""
    app = App.writer(request.config, actor=request.actor)
    try:
        return _delivered(app, request)
    except LockHeldError:
        return Result("somebody else is delivering to it", wait_seconds=_LOCK_WAIT_SECONDS)
    except SecretError as error:
        if DIRECTORY not in os.environ and request.actor != DAEMON:
            # Of a shell that has not got the service's credentials: the daemon need not wait for that.
            return Result(one_line(error))
        problem = DeliveryError(one_line(error), permanent=True)
    except BackupError as error:
        problem = error if isinstance(error, DeliveryError) else DeliveryError(one_line(error), permanent=True)
    except Exception as error:  # the boundary of the process: a bug must be noted as a failure like any other
        log.exception("%s: a delivery broke off on a bug in this program, please report it", request.channel)
        problem = DeliveryError(f"a bug in this program: {error!r}", permanent=True)
    if request.test_by is None:  # of a test nothing is noted
        _note(app, request.channel, problem)
    return Result(one_line(problem), unsure=problem.unsure, wait_seconds=wait_seconds(1, problem))


def _delivered(app: App, request: Request) -> Result:
    # Reading a secret may hang, too.
    signal.alarm(LETTER_LIMIT_SECONDS)
    courier = app.courier(request.channel, everything=request.test_by is not None)
    if request.test_by is not None:
        courier.deliver_loose(_test(request.test_by, app.now()), {})
    elif request.loose:
        entries = [loose.entry() for loose in request.loose]
        return Result(causes=courier.deliver_loose(entries, request.causes, doubtful=request.doubtful))
    else:
        courier.deliver()
    return Result()


def _test(user: str, now: datetime) -> list[Entry]:
    """A message, and its end for those who have something to close."""
    return [Entry(id=0, at=now, actor=user, event=TestMessage(user=user, over=over)) for over in (False, True)]


def _note(app: App, channel: str, problem: DeliveryError) -> None:
    try:
        note_failure(app.catalog, channel, problem, app.now())
    except CatalogError as error:
        log.warning("%s: the failure could not be noted: %s", channel, error)


if __name__ == "__main__":
    main()
