"""The outbox in the catalog: events that must be heard of, and how far each channel is with them.

An event is kept in the transaction that records the fact itself, where there is one, so neither is ever there without
the other. Each channel goes through the events in order, by id, and remembers here how far it came, which delivery
it has begun without knowing its end, and which lasting troubles ("causes") it has told of.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from scpln_backup import events
from scpln_backup.events import Event, EventUnreadable
from scpln_backup.records.access import Access, meta
from scpln_backup.records.times import from_micros, optional_datetime, optional_micros, to_micros
from scpln_backup.records.values import encodable, in_zone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

_KINDS = {
    name: kind
    for name, kind in vars(events).items()
    if isinstance(kind, type) and issubclass(kind, Event) and kind.durable
}


_NAMES = ", ".join(f"'{name}'" for name in _KINDS)
_SELECT_ENTRIES = f"SELECT id, at, actor, kind, payload FROM events WHERE kind IN ({_NAMES})"  # noqa: S608 - our own classes
_NO_LIMIT = 1 << 62

# However long a service asks to be left alone.
LONGEST_WAIT = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An event in the outbox. `actor` is who made it happen; `id` 0: it could not be kept, and is held in memory."""

    id: int
    at: datetime
    actor: str
    event: Event


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Something bad that lasts and that a channel has told of `count` times; `ref` is what the service calls it."""

    since: datetime
    count: int = 1
    ref: str | None = None


class ChannelState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a channel is.

    `settled` is the newest entry that is dealt with. `begun_key`, `begun_upto`: a delivery whose end is not known.
    `attempts` failed in a row, since `failing_since`; the next one is at `retry_at`. `sent` and `failures` only grow.
    `waiting` entries are not settled, the oldest of `oldest_at`.
    """

    name: str
    settled: int = 0
    begun_key: str | None = None
    begun_upto: int | None = None
    attempts: int = 0
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    error: str | None = None
    sent: int = 0
    failures: int = 0
    sent_at: datetime | None = None
    waiting: int = 0
    oldest_at: datetime | None = None

    def may_try(self, now: datetime) -> bool:
        """Whether the next attempt's time has come.

        One further away than the longest wait was set by a clock that has been put back since.
        """
        if self.retry_at is None:
            return True
        return not timedelta() < self.retry_at.astimezone(UTC) - now.astimezone(UTC) <= LONGEST_WAIT


def keep(connection: sqlite3.Connection, event: Event, at: datetime, actor: str) -> bool:
    """Keep an event in the transaction of the fact that it tells of. False: it was kept before."""
    payload = msgspec.json.encode(encodable(event)).decode()
    cursor = connection.execute(
        "INSERT INTO events (at, kind, key, actor, payload) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO NOTHING",
        (to_micros(at), type(event).__name__, event.key, actor, payload),
    )
    return cursor.rowcount > 0


class Outbox(Access):
    """The catalog's part about events and their delivery."""

    def keep_event(self, event: Event, at: datetime) -> bool:
        """Keep an event that no other table tells of, or make sure that one was kept. False: it was kept before."""
        with self._writing() as connection:
            return keep(connection, event, at, self.actor)

    def note_told(self, event: Event, channels: Iterable[str]) -> None:
        """`channels` have heard of an event before it could be kept, just now."""
        wanted = list(channels)
        if not wanted:
            return
        with self._writing() as connection:
            statement = "SELECT max(id) FROM events WHERE kind = ? AND key IS ?"
            (number,) = connection.execute(statement, (type(event).__name__, event.key)).fetchone()
            connection.executemany("INSERT OR IGNORE INTO told VALUES (?, ?)", [(name, number) for name in wanted])

    def entries(self, *, after: int = 0, upto: int | None = None, limit: int = 500) -> list[Entry]:
        """The oldest `limit` entries after id `after` (and not after `upto`), oldest first.

        A kind that this version does not know is left out: a newer one has written it.
        """
        last = upto if upto is not None else _NO_LIMIT
        return self._entries(f"{_SELECT_ENTRIES} AND id > ? AND id <= ? ORDER BY id LIMIT ?", (after, last, limit))

    def waiting(self, state: ChannelState, limit: int = 500) -> list[Entry]:
        """The oldest entries that a channel has not settled; of a delivery that was begun, just those of then."""
        statement = (
            f"{_SELECT_ENTRIES} AND id > ? AND id <= ? "  # noqa: S608 - names of our own classes
            "AND id NOT IN (SELECT event FROM told WHERE channel = ?) ORDER BY id LIMIT ?"
        )
        last = state.begun_upto if state.begun_upto is not None else _NO_LIMIT
        return self._entries(statement, (state.settled, last, state.name, limit))

    def _entries(self, statement: str, values: tuple[object, ...]) -> list[Entry]:
        def question(connection: sqlite3.Connection) -> list[Entry]:
            return [
                Entry(id=number, at=from_micros(at, self.zone), actor=actor, event=_event(kind, payload, self.zone))
                for number, at, actor, kind, payload in connection.execute(statement, values)
            ]

        return self._read(question, [])

    def last_entry_id(self) -> int:
        """The id of the newest entry, whatever its kind; 0 when there is none."""
        return self._read(_newest, 0)

    def catalog_id(self) -> str:
        """A random name of this catalog: entry ids begin anew in one that replaces it. "" while there is none."""
        return self._read(lambda connection: meta(connection, "catalog_id") or "", "")

    def prune_events(self, before: datetime) -> None:
        """Forget events older than `before` that every channel has settled."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM events WHERE at < ? AND id <= (SELECT coalesce(min(settled), 0) FROM channels)",
                (to_micros(before),),
            )
            for table in ("refs", "told"):
                connection.execute(f"DELETE FROM {table} WHERE event NOT IN (SELECT id FROM events)")  # noqa: S608 - ours

    # Channels

    def register_channels(self, names: Iterable[str]) -> None:
        """Make `names` the channels there are. A new one hears of what happens from now on.

        What one that goes has told of is remembered: if it comes back it still has to tell that it is over.
        """
        wanted = set(names)
        with self._writing() as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM channels")}
            newest = _newest(connection)
            for name in sorted(wanted - known):
                connection.execute("INSERT INTO channels (name, settled) VALUES (?, ?)", (name, newest))
            for name in known - wanted:
                connection.execute("DELETE FROM channels WHERE name = ?", (name,))

    def channel(self, name: str) -> ChannelState | None:
        """None: it is not registered."""
        return next((state for state in self.channels() if state.name == name), None)

    def channels(self) -> list[ChannelState]:
        """All registered ones, by name."""
        return self._read(self._channels, [])

    def _channels(self, connection: sqlite3.Connection) -> list[ChannelState]:
        found = connection.execute(
            "SELECT name, settled, begun_key, begun_upto, attempts, failing_since, retry_at, error, sent, failures, "
            "sent_at, (SELECT count(*) FROM events WHERE id > settled), "
            "(SELECT min(at) FROM events WHERE id > settled) FROM channels ORDER BY name"
        )
        return [
            ChannelState(
                name=name,
                settled=settled,
                begun_key=begun_key,
                begun_upto=begun_upto,
                attempts=attempts,
                failing_since=optional_datetime(failing_since, self.zone),
                retry_at=optional_datetime(retry_at, self.zone),
                error=error,
                sent=sent,
                failures=failures,
                sent_at=optional_datetime(sent_at, self.zone),
                waiting=waiting,
                oldest_at=optional_datetime(oldest, self.zone),
            )
            for (
                name, settled, begun_key, begun_upto, attempts, failing_since, retry_at, error, sent, failures, sent_at,
                waiting, oldest,
            ) in found
        ]  # fmt: skip

    def causes(self, channel: str) -> dict[str, Cause]:
        """The lasting troubles that a channel has told of and not yet told to be over."""

        def question(connection: sqlite3.Connection) -> dict[str, Cause]:
            found = connection.execute("SELECT name, since, count, ref FROM causes WHERE channel = ?", (channel,))
            return {
                name: Cause(since=from_micros(since, self.zone), count=count, ref=ref)
                for name, since, count, ref in found
            }

        return self._read(question, {})

    def set_causes(self, channel: str, causes: Mapping[str, Cause]) -> None:
        """Note the causes that a channel has told of while the catalog could not be written."""
        with self._writing() as connection:
            connection.execute("DELETE FROM causes WHERE channel = ?", (channel,))
            connection.executemany(
                "INSERT INTO causes (channel, name, since, count, ref) VALUES (?, ?, ?, ?, ?)",
                [(channel, name, to_micros(cause.since), cause.count, cause.ref) for name, cause in causes.items()],
            )

    def refs(self, channel: str, ids: Sequence[int]) -> Mapping[int, list[str]]:
        """Entry id -> what the channel's service calls what was made of it (tickets)."""
        wanted = set(ids)

        def question(connection: sqlite3.Connection) -> Mapping[int, list[str]]:
            collected: defaultdict[int, list[str]] = defaultdict(list)
            for event, ref in connection.execute("SELECT event, ref FROM refs WHERE channel = ?", (channel,)):
                if event in wanted:
                    collected[event].append(ref)
            return collected

        return self._read(question, {})

    def has_ref(self, channel: str, event: Event) -> bool:
        """Whether the channel's service has a name for what was made of this event, which must have a key."""
        statement = (
            "SELECT 1 FROM refs JOIN events ON events.id = refs.event "
            "WHERE refs.channel = ? AND events.kind = ? AND events.key = ? LIMIT 1"
        )
        values = (channel, type(event).__name__, event.key)
        return self._read(lambda connection: connection.execute(statement, values).fetchone() is not None, False)

    # Deliveries

    def begin_delivery(self, channel: str, key: str, upto: int) -> bool:
        """Note that a delivery is about to be made. True: it was begun before, and its end is not known."""
        with self._writing() as connection:
            statement = "SELECT begun_key FROM channels WHERE name = ?"
            found = connection.execute(statement, (channel,)).fetchone()
            doubtful = found is not None and found[0] == key
            statement = "UPDATE channels SET begun_key = ?, begun_upto = ? WHERE name = ?"
            connection.execute(statement, (key, upto, channel))
            return doubtful

    def settle(
        self,
        channel: str,
        upto: int,
        *,
        at: datetime | None = None,
        opens: Sequence[str] = (),
        closes: Sequence[str] = (),
        about: Sequence[int] = (),
        ref: str | None = None,
    ) -> None:
        """All entries up to id `upto` are dealt with. `at`: by a delivery at that time, about the entries `about`."""
        with self._writing() as connection:
            connection.execute("UPDATE channels SET settled = max(settled, ?) WHERE name = ?", (upto, channel))
            if at is None:
                return
            connection.execute(
                "UPDATE channels SET begun_key = NULL, begun_upto = NULL, attempts = 0, failing_since = NULL, "
                "retry_at = NULL, error = NULL, sent = sent + 1, sent_at = ? WHERE name = ?",
                (to_micros(at), channel),
            )
            connection.executemany(_OPEN_CAUSE, [(channel, name, to_micros(at), ref) for name in opens])
            connection.executemany(
                "DELETE FROM causes WHERE channel = ? AND name = ?", [(channel, name) for name in closes]
            )
            if ref is not None:
                connection.executemany(
                    "INSERT OR IGNORE INTO refs (channel, event, ref) VALUES (?, ?, ?)",
                    [(channel, event, ref) for event in about],
                )

    def fail_delivery(
        self, channel: str, error: str, *, at: datetime, retry_at: datetime, arrived_surely_not: bool
    ) -> None:
        """A delivery did not get through; `arrived_surely_not`: trying it again cannot make it two."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE channels SET attempts = attempts + 1, failures = failures + 1, error = ?, retry_at = ?, "
                "failing_since = coalesce(failing_since, ?) WHERE name = ?",
                (error, optional_micros(retry_at), to_micros(at), channel),
            )
            if arrived_surely_not:
                connection.execute(_NOTHING_BEGUN, (channel,))

    def forget_delivery(self, channel: str) -> None:
        """What was begun is settled, or is for nobody any more."""
        with self._writing() as connection:
            connection.execute(_NOTHING_BEGUN, (channel,))

    def clear_failure(self, channel: str) -> None:
        """Nothing waits any more that had failed."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE channels SET attempts = 0, failing_since = NULL, retry_at = NULL, error = NULL WHERE name = ?",
                (channel,),
            )

    def retry_now(self, channel: str) -> None:
        """Do not wait any longer before the next attempt."""
        with self._writing() as connection:
            connection.execute("UPDATE channels SET retry_at = NULL WHERE name = ?", (channel,))


_NOTHING_BEGUN = "UPDATE channels SET begun_key = NULL, begun_upto = NULL WHERE name = ?"
_OPEN_CAUSE = """
INSERT INTO causes (channel, name, since, count, ref) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (channel, name) DO UPDATE SET count = count + 1, ref = coalesce(excluded.ref, ref)
"""


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def _event(kind: str, payload: str, zone: tzinfo) -> Event:
    """The event of a row. One that cannot be read must not keep all that came after it back."""
    try:
        return in_zone(msgspec.json.decode(payload, type=_KINDS[kind]), zone)
    except (msgspec.MsgspecError, ValueError):
        return EventUnreadable(kind=kind)
