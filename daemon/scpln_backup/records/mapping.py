"""Structs as rows of a table: times as integers, nested values as JSON, everything else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from scpln_backup.records.rows import storable
from scpln_backup.records.times import optional_datetime, optional_micros
from scpln_backup.records.values import encodable, in_zone

if TYPE_CHECKING:
    from datetime import tzinfo

R = TypeVar("R", bound=msgspec.Struct)


class Mapping(Generic[R]):
    """The structs of `kind` in `table`, whose columns have the names of the fields.

    `times`, `nested` and `flags` name the fields that SQLite has no type for. The struct has an `id`, which
    inserting leaves to SQLite.
    """

    def __init__(
        self,
        table: str,
        kind: type[R],
        *,
        times: frozenset[str],
        nested: frozenset[str] = frozenset(),
        flags: frozenset[str] = frozenset(),
    ) -> None:
        self._kind = kind
        self._times = times
        self._nested = nested
        self._flags = flags
        self.columns = tuple(name for name in kind.__struct_fields__ if name != "id")
        self._table = table
        listed = ", ".join(self.columns)
        values = ", ".join(f":{name}" for name in self.columns)
        self.insert = f"INSERT INTO {table} ({listed}) VALUES ({values})"  # noqa: S608 - the names of our own structs' fields
        self.select = f"SELECT id, {listed} FROM {table}"  # noqa: S608 - as above

    def update_where(self, *keys: str) -> str:
        """Changes the row that has the record's values in the columns `keys`."""
        assigned = ", ".join(f"{name} = :{name}" for name in self.columns)
        condition = " AND ".join(f"{key} = :{key}" for key in keys)
        return f"UPDATE {self._table} SET {assigned} WHERE {condition}"  # noqa: S608 - as above

    def upsert(self, *keys: str) -> str:
        """Adds a row, or changes the one that has the same values in the columns `keys`, which are UNIQUE."""
        assigned = ", ".join(f"{name} = excluded.{name}" for name in self.columns)
        return f"{self.insert} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {assigned}"

    def to_row(self, record: R) -> dict[str, Any]:
        return {name: self._stored(name, getattr(record, name)) for name in record.__struct_fields__}

    def _stored(self, name: str, value: Any) -> Any:
        if name in self._times:
            return optional_micros(value)
        if name in self._nested:
            return None if value is None else msgspec.json.encode(encodable(value)).decode()
        return storable(value) if isinstance(value, str) else value

    def from_row(self, row: tuple[Any, ...], zone: tzinfo) -> R:
        """`row` as `select` gives it. ValueError and the like for values that no version of this program wrote."""
        fields = dict(zip(("id", *self.columns), row, strict=True))
        for name in self._times:
            fields[name] = optional_datetime(fields[name], zone)
        for name in self._nested:
            fields[name] = None if fields[name] is None else msgspec.json.decode(fields[name])
        for name in self._flags:
            fields[name] = bool(fields[name])
        record = msgspec.convert(fields, self._kind)
        # JSON keeps the instant and an offset; the zone has to be given again.
        changed = {name: in_zone(getattr(record, name), zone) for name in self._nested}
        return msgspec.structs.replace(record, **changed)
