"""The stores that the tests of the protocol run over: the one that ships, and one as a third party would add it."""

from collections.abc import Callable, Sequence

from everturn.runtime.clock import Clock
from everturn.runtime.database.database import Database
from everturn.runtime.resources.components import Component
from everturn.runtime.state.store import GuardError, SqliteStateStore, StateEntry, StateStore, Write


class DictStateStore:
    """A `StateStore` in memory. Its ETags are counters, as those of Redis."""

    def __init__(self, _component: Component, _database: Database, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, StateEntry] = {}
        self._writes = 0

    async def get(self, key: str) -> StateEntry | None:
        entry = self._entries.get(key)
        return None if entry is None or self._is_over(entry) else entry

    async def get_bulk(self, keys: Sequence[str]) -> list[StateEntry | None]:
        return [await self.get(key) for key in keys]

    async def save(self, writes: Sequence[Write]) -> list[Write]:
        return [write for write in writes if not await self.make(write)]

    async def transact(self, writes: Sequence[Write]) -> None:
        before = dict(self._entries)
        for write in writes:
            if not await self.make(write):
                self._entries = before
                raise GuardError(write.key)

    async def sweep(self) -> int:
        dead = [key for key, entry in self._entries.items() if self._is_over(entry)]
        for key in dead:
            del self._entries[key]
        return len(dead)

    def _is_over(self, entry: StateEntry) -> bool:
        return entry.expires_at is not None and entry.expires_at <= self._clock.now()

    async def make(self, write: Write) -> bool:
        found = await self.get(write.key)
        if (write.first_write and found) or (write.etag is not None and (found is None or found.etag != write.etag)):
            return False
        self._entries.pop(write.key, None)
        if write.value is not None:
            self._writes += 1
            expires_at = self._clock.now() + write.ttl_s if write.ttl_s is not None and write.ttl_s > 0 else None
            self._entries[write.key] = StateEntry(write.value, str(self._writes), expires_at)
        return True


STORES: dict[str, Callable[[Component, Database, Clock], StateStore]] = {
    "sqlite": SqliteStateStore,
    "dict": DictStateStore,
}
