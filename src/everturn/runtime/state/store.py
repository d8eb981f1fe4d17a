"""State: what a store is (values under keys, with opaque ETags, first write, time to live and transactions), the one in
the runtime's database, and what an app sees of either, with Dapr's words for what goes wrong.

Semantics: https://docs.dapr.io/reference/api/state_api/. Another store is a class that keeps the protocol, and a line
in `STATE_STORES` or in the `state_stores` that a runtime is given. Of what differs between Dapr's stores, the one here
does what Dapr's SQLite does.
"""

import itertools
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import apsw

from everturn.errors import TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.database.database import Database
from everturn.runtime.errors import DaprError, malformed
from everturn.runtime.resources.components import Component

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A value (JSON text in UTF-8; over gRPC any bytes) and its ETag until the next write.

    `expires_at`: seconds since 1970-01-01 UTC, None for a key that stays.
    """

    value: bytes
    etag: str
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One change of `key`: to `value`, or a deletion if that is None.

    With an `etag` only if it is still the key's; with `first_write` only if there is no such key; else in any case.
    `ttl_s`: seconds after which the key is gone; -1: it stays. None: it stays too, except on Redis, where a key keeps
    the time that it has. If none of a call's writes is `durable`, the store may return before they are on disk, if
    they are there before all that the runtime writes later.
    """

    key: str
    value: bytes | None
    etag: str | None = None
    first_write: bool = False
    ttl_s: int | None = None
    durable: bool = True


class GuardError(Exception):
    """The ETag or first write of a transaction's write to `key` did not hold."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class StateStore(Protocol):
    """The values of one component. Keys are full, prefix included; a key whose time is over is not there.

    Every method raises TransientError if the store cannot be reached or does not take it.
    """

    async def get(self, key: str) -> StateEntry | None:
        """What `key` holds on disk, None if there is no such key. Never older than a write that has returned."""
        ...

    async def get_bulk(self, keys: Sequence[str]) -> list[StateEntry | None]:
        """What each of `keys` holds, in their order."""
        ...

    async def save(self, writes: Sequence[Write]) -> list[Write]:
        """Make each of `writes` whose guard holds, and return the others. What is made is durable on return.

        Unless none of `writes` is to be so.
        """
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """Make all of `writes`, in order. Raises GuardError if a guard does not hold.

        An atomic store made none of them then; another one says what it does.
        """
        ...

    async def sweep(self) -> int:
        """Give back the space of keys whose time is over; how many there were."""
        ...


OpenStateStore = Callable[[Component, Database, Clock], StateStore]


# A sweep holds the writer for one batch of this many keys at a time.
_SWEEP_BATCH = 500
# All values in memory together, the largest one that is kept there, and what an entry takes besides its value.
_MAX_RECENT_BYTES = 4 * 1024 * 1024
_MAX_VALUE_BYTES = 256 * 1024
_ENTRY_BYTES = 500
# Added to any time of these centuries it is still a date (datetime ends with the year 9999).
_MOST_TTL_S = 10_000_000_000

# No ETag is used twice: a key that was deleted and created again is another one.
_OF_THIS_PROCESS = secrets.token_hex(8)
_write_number = itertools.count()

_LIVE = "(expires_at IS NULL OR expires_at > :now)"
_GET = "SELECT value, etag, expires_at FROM state WHERE store = ? AND key = ?"
_UPSERT = """
INSERT INTO state (store, key, value, etag, expires_at) VALUES (:store, :key, :value, :new_etag, :expires_at)
ON CONFLICT (store, key) DO UPDATE SET value = :value, etag = :new_etag, expires_at = :expires_at
"""
_FIRST_WRITE = _UPSERT + "WHERE expires_at <= :now"
_UPDATE = f"""
UPDATE state SET value = :value, etag = :new_etag, expires_at = :expires_at
WHERE store = :store AND key = :key AND etag = :etag AND {_LIVE}
"""  # noqa: S608
_DELETE = "DELETE FROM state WHERE store = :store AND key = :key"
_DELETE_IF = f"{_DELETE} AND etag = :etag AND {_LIVE}"
_SWEEP = "DELETE FROM state WHERE id IN (SELECT id FROM state WHERE expires_at <= ? LIMIT ?)"


class RecentValues:
    """The most recently used values as they were committed, so that what was just written is read without the disk."""

    def __init__(self, max_bytes: int = _MAX_RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, StateEntry] = OrderedDict()

    def get(self, key: str) -> StateEntry | None:
        """None if the value is not in here."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: StateEntry) -> None:
        """This is on disk now."""
        self.drop(key)
        if len(entry.value) > _MAX_VALUE_BYTES:
            return
        self._entries[key] = entry
        self._bytes += len(entry.value) + _ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.value) + _ENTRY_BYTES

    def drop(self, key: str) -> None:
        """The next read asks the disk."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value) + _ENTRY_BYTES


class SqliteStateStore:
    """A `StateStore`. The runtime is the only writer of its file, so what it has committed is what there is."""

    def __init__(self, component: Component, database: Database, clock: Clock) -> None:
        self._name = component.name
        self._database = database
        self._clock = clock
        self._recent = RecentValues()
        # The ETag of the last write of each key that may have returned before it is on disk.
        self._unsettled: dict[str, str] = {}

    async def get(self, key: str) -> StateEntry | None:
        if key in self._unsettled:
            await self._settle([key])
        return self._get(key, self._clock.now())

    async def get_bulk(self, keys: Sequence[str]) -> list[StateEntry | None]:
        await self._settle(keys)
        now = self._clock.now()
        return [self._get(key, now) for key in keys]

    async def save(self, writes: Sequence[Write]) -> list[Write]:
        """Those that can be made are made in one commit."""
        return await self._write(writes, _apply_each)

    async def transact(self, writes: Sequence[Write]) -> None:
        """All or nothing."""
        await self._write(writes, _apply_all)

    async def sweep(self) -> int:
        """Of every store in the file, also of those that no component names any more."""
        swept = 0
        while True:
            batch = await self._database.write(partial(_sweep, self._clock.now()))
            swept += batch
            if batch < _SWEEP_BATCH:
                return swept

    async def _write(
        self, writes: Sequence[Write], apply: "Callable[[Sequence[_Bound], apsw.Cursor], list[Write]]"
    ) -> list[Write]:
        bound = self._bind(writes)
        is_durable = any(write.durable for write in writes)
        return await self._database.write(
            partial(apply, bound), lambda lost: self._remember(bound, lost), durable=is_durable
        )

    async def _settle(self, keys: Sequence[str]) -> None:
        """Return when what was written to `keys` is on disk: nobody acts on what may still be lost."""
        awaited = {key: self._unsettled[key] for key in keys if key in self._unsettled}
        if awaited:
            await self._database.settled()
        for key, etag in awaited.items():
            self._is_settled(key, etag)

    def _is_settled(self, key: str, etag: str) -> None:
        if self._unsettled.get(key) == etag:
            del self._unsettled[key]

    def _get(self, key: str, now: float) -> StateEntry | None:
        entry = self._recent.get(key)
        if entry is None:
            rows = self._database.read(_GET, (self._name, key))
            if not rows:
                return None
            entry = StateEntry(*rows[0])
            self._recent.put(key, entry)
        return entry if entry.expires_at is None or entry.expires_at > now else None

    def _bind(self, writes: Sequence[Write]) -> "list[_Bound]":
        now = self._clock.now()
        bound: list[_Bound] = []
        for write in writes:
            new_etag = f"{_OF_THIS_PROCESS}-{next(_write_number):x}"
            expires_at = now + write.ttl_s if write.ttl_s is not None and write.ttl_s > 0 else None
            bindings: _Bindings = {
                "store": self._name,
                "key": write.key,
                "value": write.value,
                "etag": write.etag,
                "new_etag": new_etag,
                "expires_at": expires_at,
                "now": now,
            }
            entry = None if write.value is None else StateEntry(write.value, new_etag, expires_at)
            if not write.durable:
                self._unsettled[write.key] = new_etag
            bound.append((write, bindings, entry))
        return bound

    def _remember(self, bound: "Sequence[_Bound]", lost: Collection[Write]) -> None:
        """These writes are on disk, those to the keys of `lost` perhaps not."""
        lost_keys = {write.key for write in lost}
        for write, bindings, entry in bound:
            self._is_settled(write.key, str(bindings["new_etag"]))
            if entry is None or write.key in lost_keys:
                self._recent.drop(write.key)
            else:
                self._recent.put(write.key, entry)


_Bindings = dict[str, str | bytes | float | None]
# A write, what its statement is given, and what a read finds after it.
_Bound = tuple[Write, _Bindings, StateEntry | None]


def _apply_each(bound: Sequence[_Bound], cursor: apsw.Cursor) -> list[Write]:
    """Those whose guard did not hold."""
    return [write for write, bindings, _ in bound if not _apply(cursor, write, bindings)]


def _apply_all(bound: Sequence[_Bound], cursor: apsw.Cursor) -> list[Write]:
    """Raises GuardError, which undoes them all."""
    if lost := _apply_each(bound, cursor):
        raise GuardError(lost[0].key)
    return lost


def _sweep(now: float, cursor: apsw.Cursor) -> int:
    cursor.execute(_SWEEP, (now, _SWEEP_BATCH))
    return cursor.connection.changes()


def _apply(cursor: apsw.Cursor, write: Write, bindings: _Bindings) -> bool:
    """Whether the guard held."""
    cursor.execute(_statement(write), bindings)
    is_guarded = write.etag is not None or write.first_write
    return not is_guarded or cursor.connection.changes() > 0


def _statement(write: Write) -> str:
    if write.value is None:
        return _DELETE if write.etag is None else _DELETE_IF
    if write.etag is not None:
        return _UPDATE
    return _FIRST_WRITE if write.first_write else _UPSERT


# By type of component. Every other `state.*` is kept in SQLite too, so that the files of a deployment can be used.
STATE_STORES: Mapping[str, OpenStateStore] = {"state.sqlite": SqliteStateStore}


def open_state_store(
    component: Component, database: Database, clock: Clock, stores: Mapping[str, OpenStateStore]
) -> StateStore:
    """The store of a `state.*` component: that of its type in `stores`, else SQLite, which the log says."""
    opened = stores.get(component.type)
    if opened is None:
        log.info("state_kept_in_sqlite", extra={"component": component.name, "component_type": component.type})
        opened = SqliteStateStore
    return opened(component, database, clock)


def ttl_s(given: object) -> int | None:
    """Seconds of `ttlInSeconds` as it was sent, -1 for 0 as well: the key stays.

    Raises DaprError: 500 for what is no such number, as on Dapr, 400 for one that leads to no date.
    """
    if given is None:
        return None
    try:
        seconds = int(given)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise _not_saved("ttlInSeconds must be a whole number") from error
    if seconds < -1:
        raise _not_saved("ttlInSeconds must not be negative")
    if seconds > _MOST_TTL_S:
        raise DaprError(400, "ERR_STATE_SAVE", f"ttlInSeconds must be at most {_MOST_TTL_S}, three centuries")
    return seconds if seconds > 0 else -1


class AppState:
    """A state store for one app.

    Every method raises DaprError: 400 for a key that cannot be, 409 if a guard did not hold, 500 if the store does not
    take it.
    """

    def __init__(self, store: StateStore, component: Component, app_id: str, database: Database) -> None:
        """`database`: the runtime's, which `store` may be in."""
        self._store = store
        # A write to another place must not be ahead of one that is not on disk here yet.
        self._before_write = _no_wait if isinstance(store, SqliteStateStore) else database.settled
        self._name = component.name
        self._prefix = _key_prefix(component, app_id)

    async def get(self, key: str) -> StateEntry | None:
        """What `key` holds as of the last commit, None if there is no such key."""
        with _refused("ERR_STATE_GET", f"fail to get {key} from state store {self._name}"):
            return await self._store.get(self._full_key(key))

    async def get_bulk(self, keys: Sequence[str]) -> list[StateEntry | None]:
        """What each of `keys` holds, in their order."""
        with _refused("ERR_STATE_GET", f"fail to get {', '.join(keys)} from state store {self._name}"):
            return await self._store.get_bulk([self._full_key(key) for key in keys])

    async def save(self, writes: Sequence[Write]) -> None:
        """Make each of `writes` that its guard allows. Not atomic, as on Dapr."""
        what = f"failed saving state in state store {self._name}"
        with _refused("ERR_STATE_SAVE", what):
            await self._before_write()
            lost = await self._store.save(self._bind(writes))
        if lost:
            keys = ", ".join(self._short_key(write.key) for write in lost)
            raise DaprError(409, "ERR_STATE_SAVE", f"{what}: the etag of {keys} does not match")

    async def delete(self, key: str, etag: str | None) -> None:
        """Delete `key`; that there is none is an error only with an `etag`."""
        what = f"failed deleting state with key {key}"
        with _refused("ERR_STATE_DELETE", what):
            await self._before_write()
            lost = await self._store.save(self._bind([Write(key, None, etag)]))
        if lost:
            raise DaprError(409, "ERR_STATE_DELETE", f"{what}: possible etag mismatch")

    async def transact(self, writes: Sequence[Write]) -> None:
        """Make all of `writes`, in order, or none. A guard that does not hold is a 500, as on Dapr."""
        what = "error while executing state transaction"
        try:
            with _refused("ERR_STATE_TRANSACTION", what):
                await self._before_write()
                await self._store.transact(self._bind(writes))
        except GuardError as error:
            reason = f"possible etag mismatch for key {self._short_key(error.key)}"
            raise DaprError(500, "ERR_STATE_TRANSACTION", f"{what}: {reason}") from error

    def _bind(self, writes: Sequence[Write]) -> list[Write]:
        return [replace(write, key=self._full_key(write.key)) for write in writes]

    def _full_key(self, key: str) -> str:
        if not key:
            raise malformed('"key" is a required field')
        if "||" in key:
            raise malformed(f"input key/keyPrefix '{key}' can't contain '||'")
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise malformed("a key must not contain lone surrogates") from error
        return self._prefix + key

    def _short_key(self, key: str) -> str:
        return key.removeprefix(self._prefix)


@contextmanager
def _refused(code: str, what: str) -> Iterator[None]:
    """A store that cannot be reached, or does not take it, is a 500 with `code`."""
    try:
        yield
    except TransientError as error:
        raise DaprError(500, code, f"{what}: {error.message}") from error


def _key_prefix(component: Component, app_id: str) -> str:
    """What Dapr puts before a key (docs.dapr.io, "How-To: Share state between applications")."""
    match component.metadata.get("keyPrefix", "appid"):
        case "none":
            return ""
        case "appid":
            return f"{app_id}||"
        case "name":
            return f"{component.name}||"
        case other:
            return f"{other}||"


async def _no_wait() -> None:
    """For a store whose writes are in the order of the runtime's own."""


def _not_saved(message: str) -> DaprError:
    return DaprError(500, "ERR_STATE_SAVE", message)
