"""State stores beside the machine, which outlive its crashes: one by Redis' rules, one by PostgreSQL's.

The workflows of a simulated machine stay on its disk. What a store does, in what order, and what gets lost on the way,
is the fault plan's. Rules: dapr/components-contrib v1.18, state/redis/redis.go (its Lua scripts) and
state/postgresql/v2.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from everturn.errors import TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.state.store import GuardError, StateEntry, StateStore, Write
from tests.chaos.power import MachineDied, Power, nothing_more
from tests.chaos.simulated_loop import pass_time

T = TypeVar("T")

# Seconds that each way of a request takes at most.
_SLOWEST_WAY_S = 0.004


@dataclass(slots=True)
class Kept:
    """What a store keeps under a key. `is_first`: Redis' mark of a key that was created by a first write."""

    value: bytes
    version: int
    is_first: bool = False
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong in one life: the share of writes whose answer gets lost, made or not, and when all is refused
    (seconds of the life, from and to)."""

    lost: float = 0.0
    refused: tuple[float, float] = (0.0, 0.0)


NO_TROUBLE = Trouble()


@dataclass(slots=True)
class StoreServer:
    """What outlives the machine: the values, and the numbers of their versions."""

    values: dict[str, Kept] = field(default_factory=dict)
    versions: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def has(self, text: str, fact: str) -> bool:
        """Whether a turn's `fact` (`:verdict`, `:call:`) holds `text`."""
        return any(fact in key and text.encode() in kept.value for key, kept in self.values.items())


class RemoteStore:
    """A `StateStore` that asks `server`; the machine hears of nothing once it is dead."""

    def __init__(
        self, server: StoreServer, clock: Clock, power: Power, trouble: Trouble, counts: dict[str, int]
    ) -> None:
        self.server = server
        self._clock = clock
        self._power = power
        self._trouble = trouble
        self._counts = counts

    @property
    def random(self) -> Random:
        return self._power.random

    async def get(self, key: str) -> StateEntry | None:
        return await self._ask(lambda: self._entry(key))

    async def get_bulk(self, keys: Sequence[str]) -> list[StateEntry | None]:
        return [await self.get(key) for key in keys]  # one after the other, as Redis is asked: writes fall in between

    async def save(self, writes: Sequence[Write]) -> list[Write]:
        lost: list[Write] = []
        for write in writes:
            try:
                await self._write(lambda write=write: self.apply(write))  # type: ignore[misc]
            except GuardError:
                lost.append(write)
        return lost

    async def transact(self, writes: Sequence[Write]) -> None:
        await self._write(lambda: self.apply_all(writes), lambda: self.apply_some(writes))

    async def sweep(self) -> int:
        return 0

    def find(self, key: str) -> Kept | None:
        kept = self.server.values.get(key)
        if kept is not None and kept.expires_at is not None and kept.expires_at <= self._clock.now():
            del self.server.values[key]
            return None
        return kept

    def expiry(self, ttl_s: int | None) -> float | None:
        return self._clock.now() + ttl_s if ttl_s is not None and ttl_s > 0 else None

    def apply(self, write: Write) -> None:
        """One save or deletion. Raises GuardError if its ETag or first write did not hold."""
        raise NotImplementedError

    def apply_all(self, writes: Sequence[Write]) -> None:
        """A transaction. Raises GuardError."""
        raise NotImplementedError

    def apply_some(self, writes: Sequence[Write]) -> None:
        """What there is of a transaction whose answer gets lost."""
        raise NotImplementedError

    def _entry(self, key: str) -> StateEntry | None:
        kept = self.find(key)
        return None if kept is None else StateEntry(kept.value, str(kept.version), kept.expires_at)

    async def _ask(self, answer: Callable[[], T]) -> T:
        await self._way()
        found = answer()
        await self._way()
        return found

    async def _write(self, make: Callable[[], None], make_some: Callable[[], None] | None = None) -> None:
        await self._way()
        is_lost = self.random.random() < self._trouble.lost
        if is_lost:
            self._count("lost answer")
            make = (make_some or make) if self.random.random() < 0.5 else _nothing
        try:
            self._power.write(make)
        except MachineDied:
            await nothing_more()
        except GuardError:
            if not is_lost:
                await self._way()
                raise
        await self._way()
        if is_lost:
            raise TransientError("the store's answer got lost", kind="store")

    async def _way(self) -> None:
        await pass_time(self.random.random() * _SLOWEST_WAY_S)
        if self._power.dead:
            await nothing_more()
        begin, end = self._trouble.refused
        if begin <= self._clock.elapsed() < end:
            self._count("store away")
            raise TransientError("the store refuses", kind="store")

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


class RedisStore(RemoteStore):
    """Redis: versions are counters, a transaction is no more than its writes, each on its own."""

    def apply(self, write: Write) -> None:
        self._apply(write, is_first=write.first_write)

    def apply_all(self, writes: Sequence[Write]) -> None:
        """Each write that can be made is made, also if one before it cannot; first writes are written plainly."""
        refused = [write for write in writes if not self._can_apply(write)]
        if refused:
            raise GuardError(refused[0].key)

    def apply_some(self, writes: Sequence[Write]) -> None:
        """Any of them."""
        for write in writes:
            if self.random.random() < 0.5:
                self._can_apply(write)

    def _can_apply(self, write: Write) -> bool:
        try:
            self._apply(write, is_first=False)
        except (GuardError, TransientError):
            return False
        return True

    def _apply(self, write: Write, *, is_first: bool) -> None:
        """The Lua scripts; without an ETag `wanted` is 0."""
        kept, wanted = self.find(write.key), int(write.etag or 0)
        if write.value is None:
            if kept is not None and wanted not in (0, kept.version):
                raise GuardError(write.key)
            self.server.values.pop(write.key, None)
            return
        if kept is not None and wanted != kept.version and not (wanted == 0 and not kept.is_first):
            if wanted == 0:
                # 500 and not 409, as any other trouble.
                raise TransientError(f"failed to set key {write.key}", kind="store")
            raise GuardError(write.key)
        if kept is None:
            kept = self.server.values[write.key] = Kept(write.value, 0)
        kept.value, kept.version, kept.is_first = write.value, kept.version + 1, kept.is_first or is_first
        if write.ttl_s is not None:
            kept.expires_at = self.expiry(write.ttl_s)


class PostgresStore(RemoteStore):
    """PostgreSQL: versions are used once, first writes are guarded, a transaction is all or nothing."""

    def apply(self, write: Write) -> None:
        kept = self.find(write.key)
        if write.etag is not None and (kept is None or str(kept.version) != write.etag):
            raise GuardError(write.key)
        if write.etag is None and write.first_write and kept is not None:
            raise GuardError(write.key)
        if write.value is None:
            self.server.values.pop(write.key, None)
            return
        version = next(self.server.versions)
        self.server.values[write.key] = Kept(write.value, version, expires_at=self.expiry(write.ttl_s))

    def apply_all(self, writes: Sequence[Write]) -> None:
        before = dict(self.server.values)
        try:
            for write in writes:
                self.apply(write)
        except GuardError:
            self.server.values = before
            raise

    def apply_some(self, writes: Sequence[Write]) -> None:
        """All of it: its answer alone gets lost."""
        self.apply_all(writes)


def _nothing() -> None: ...


def _keeps_the_protocol(store: RemoteStore) -> StateStore:
    return store


# By name; SQLite is the runtime's own.
STORES: dict[str, type[RemoteStore]] = {"redis": RedisStore, "postgresql": PostgresStore}
