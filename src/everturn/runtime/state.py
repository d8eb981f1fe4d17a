"""The state store: values under keys, with opaque ETags, first write, TTL and transactions, in the runtime's database.

Semantics: https://docs.dapr.io/reference/api/state_api/, and of what differs between Dapr's stores those of its SQLite.
"""

import itertools
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import apsw

from everturn.errors import TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.components import Component
from everturn.runtime.dapr_errors import DaprError, malformed
from everturn.runtime.state_cache import Found, KeyName, StateCache
from everturn.runtime.store.database import Database

# A sweep holds the writer for one batch of this many keys at a time.
_SWEEP_BATCH = 500

# ETags are opaque and never the same again: a key that was deleted and made anew is another one.
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


@dataclass(frozen=True, slots=True)
class Write:
    """One change of `key`: to `value` (JSON text in UTF-8), or away where it is None.

    Only if `etag` is still the key's; only if `first_write` and there is no such key; else whatever is there.
    `ttl_s`: seconds after which the key is gone.
    """

    key: str
    value: bytes | None
    etag: str | None = None
    first_write: bool = False
    ttl_s: int | None = None


@dataclass(frozen=True, slots=True)
class StateFile:
    """What all stores of a database share. `recent` knows of every write, so there is one for a database."""

    database: Database
    clock: Clock
    recent: StateCache = field(default_factory=StateCache)


class StateStore:
    """The state of one component for one app.

    Every method raises DaprError: 400 for a key that cannot be, 409 where a guard did not hold, 500 where the disk
    does not let it.
    """

    def __init__(self, state: "StateFile", component: Component, app_id: str) -> None:
        self._database = state.database
        self._clock = state.clock
        self._recent = state.recent
        self._name = component.name
        self._prefix = _key_prefix(component, app_id)

    def get(self, key: str) -> Found | None:
        """The value of `key` as of the last commit, None where there is none."""
        name, now = (self._name, self._full_key(key)), self._clock.now()
        found = self._recent.get(name)
        if found is None:
            found = self._read(key, name)
        return found if found is not None and found.is_live(now) else None

    def _read(self, key: str, name: KeyName) -> Found | None:
        try:
            rows = self._database.read(_GET, name)
        except TransientError as error:
            raise DaprError(
                500, "ERR_STATE_GET", f"fail to get {key} from state store {self._name}: {error.message}"
            ) from error
        if not rows:
            return None
        found = Found(*rows[0])
        self._recent.put(name, found)
        return found

    async def save(self, writes: Sequence[Write]) -> None:
        """Make each of `writes` that its guard allows; on disk when this returns. Not atomic, as on Dapr."""
        bound = self._bind_all(writes)
        try:
            lost = await self._write_each(bound)
        except TransientError as error:
            raise self._save_error(500, error.message) from error
        if lost:
            raise self._save_error(409, f"the etag of {', '.join(lost)} does not match")

    async def delete(self, key: str, etag: str | None) -> None:
        """Delete `key`; that there is none is an error only with an `etag`."""
        what = f"failed deleting state with key {key}"
        bound = self._bind_all([Write(key, None, etag)])
        try:
            lost = await self._write_each(bound)
        except TransientError as error:
            raise DaprError(500, "ERR_STATE_DELETE", f"{what}: {error.message}") from error
        if lost:
            raise DaprError(409, "ERR_STATE_DELETE", f"{what}: possible etag mismatch")

    async def transact(self, writes: Sequence[Write]) -> None:
        """Make all of `writes`, in order, or none. A guard that does not hold is a 500, as on Dapr."""
        bound = self._bind_all(writes)
        try:
            await self._database.write(lambda cursor: _apply_all(cursor, bound), lambda _: self._remember(bound, ()))
        except (_GuardError, TransientError) as error:
            raise DaprError(
                500, "ERR_STATE_TRANSACTION", f"error while executing state transaction: {error}"
            ) from error

    async def _write_each(self, bound: "Sequence[_Bound]") -> list[str]:
        return await self._database.write(
            lambda cursor: _apply_each(cursor, bound), lambda lost: self._remember(bound, lost)
        )

    def _remember(self, bound: "Sequence[_Bound]", lost: Collection[str]) -> None:
        """These writes are on disk, those to the keys in `lost` perhaps not."""
        for write in bound:
            name = (self._name, write.full_key)
            if write.found is None or write.key in lost:
                self._recent.drop(name)
            else:
                self._recent.put(name, write.found)

    def _save_error(self, status: int, reason: str) -> DaprError:
        return DaprError(status, "ERR_STATE_SAVE", f"failed saving state in state store {self._name}: {reason}")

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

    def _bind_all(self, writes: Sequence[Write]) -> "list[_Bound]":
        now = self._clock.now()
        return [self._bind(write, now) for write in writes]

    def _bind(self, write: Write, now: float) -> "_Bound":
        new_etag = f"{_OF_THIS_PROCESS}-{next(_write_number):x}"
        expires_at = now + write.ttl_s if write.ttl_s is not None else None
        full_key = self._full_key(write.key)
        return _Bound(
            write.key,
            full_key,
            None if write.value is None else Found(write.value, new_etag, expires_at),
            _statement(write),
            guarded=write.etag is not None or write.first_write,
            bindings={
                "store": self._name,
                "key": full_key,
                "value": write.value,
                "etag": write.etag,
                "new_etag": new_etag,
                "expires_at": expires_at,
                "now": now,
            },
        )


async def sweep_expired(database: Database, clock: Clock) -> int:
    """Delete the keys of all stores whose time is over; how many there were. Raises TransientError."""
    swept = 0
    while True:
        now = clock.now()

        def job(cursor: apsw.Cursor, now: float = now) -> int:
            cursor.execute(_SWEEP, (now, _SWEEP_BATCH))
            return cursor.connection.changes()

        batch = await database.write(job)
        swept += batch
        if batch < _SWEEP_BATCH:
            return swept


@dataclass(frozen=True, slots=True)
class _Bound:
    """A write ready for SQL; `found` is what a read finds after it."""

    key: str
    full_key: str
    found: Found | None
    statement: str
    guarded: bool
    bindings: dict[str, str | bytes | float | None]


class _GuardError(Exception):
    """A guard of a transaction did not hold."""


def _statement(write: Write) -> str:
    if write.value is None:
        return _DELETE if write.etag is None else _DELETE_IF
    if write.etag is not None:
        return _UPDATE
    return _FIRST_WRITE if write.first_write else _UPSERT


def _apply(cursor: apsw.Cursor, write: _Bound) -> bool:
    """Whether the guard held."""
    cursor.execute(write.statement, write.bindings)
    return not write.guarded or cursor.connection.changes() > 0


def _apply_each(cursor: apsw.Cursor, writes: Sequence[_Bound]) -> list[str]:
    """The keys of those whose guard did not hold."""
    return [write.key for write in writes if not _apply(cursor, write)]


def _apply_all(cursor: apsw.Cursor, writes: Sequence[_Bound]) -> None:
    for write in writes:
        if not _apply(cursor, write):
            raise _GuardError(f"possible etag mismatch for key {write.key}")


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
