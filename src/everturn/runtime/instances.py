"""Instances in memory: those with work to do, and a bounded number of others, so that their next turn finds them."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from everturn.runtime.engine.inbox import Arrived
from everturn.runtime.engine.state import TERMINAL, InstanceState, Status, fold
from everturn.runtime.sdk import HistoryEvent
from everturn.runtime.store.workflow_store import InstanceRow, WorkflowStore

InstanceId = tuple[str, str]

# What the instances that wait for something may take in memory, and how many of those may wait for an activity.
_MAX_IDLE_BYTES = 8 * 1024 * 1024
_MAX_IDLE_INSTANCES = 1_000
# Those that wait for time, an event or a child may do so for hours; of an ended one only a question may still come.
_MAX_DORMANT_INSTANCES = 64
# What an event takes in memory beside its bytes: a message of its own, with an arena (measured: 16 events, 16 kB).
_EVENT_BYTES = 1_000


@dataclass(slots=True, eq=False)
class Delivery(Arrived):
    """An event in an instance's inbox. `ack`, where somebody waits, is set once the event is on disk."""

    ack: "asyncio.Future[None] | None" = None


@dataclass(slots=True, eq=False)
class Instance:
    """An instance in memory. `history` and `state` are what is on disk, never more.

    `on_disk` is False until its row is committed; `replaces` is the key of an ended instance of the same id, to be
    removed by that commit. `busy` while a step of it is under way: there is never a second one. `released`: a worker
    has come since it stalled, so that it may be tried again. `failures`: steps in a row that could not be committed.
    """

    row: InstanceRow
    state: InstanceState = field(default_factory=InstanceState)
    history: list[HistoryEvent] = field(default_factory=list)
    inbox: deque[Arrived] = field(default_factory=deque)
    on_disk: bool = True
    replaces: int | None = None
    busy: bool = False
    gone: bool = False
    released: bool = False
    failures: int = 0
    size: int = 0
    loaded_rows: set[int] = field(default_factory=set)
    quiet: "list[asyncio.Future[None]]" = field(default_factory=list)

    @property
    def id(self) -> InstanceId:
        return (self.row.app_id, self.row.instance_id)

    @property
    def key(self) -> int:
        return self.row.key

    @property
    def status(self) -> Status:
        return self.state.status if self.state.start is not None else self.row.status

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def receive(self, arrived: Arrived) -> None:
        """Put an event into the inbox, unless it came along when the instance was loaded."""
        if arrived.row is not None and arrived.row in self.loaded_rows:
            self.loaded_rows.discard(arrived.row)
        else:
            self.inbox.append(arrived)


class Instances:
    """Finds instances in memory or loads them; forgets those that rest the longest beyond a bound."""

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        self._resident: dict[InstanceId, Instance] = {}
        # At rest, longest first, with what each takes in memory: those that wait for an activity are idle.
        self._idle: OrderedDict[InstanceId, int] = OrderedDict()
        self._dormant: OrderedDict[InstanceId, int] = OrderedDict()
        self._resting_bytes = 0

    def __len__(self) -> int:
        return len(self._resident)

    @property
    def busy_count(self) -> int:
        return len(self._resident) - len(self._idle) - len(self._dormant)

    def get(self, app_id: str, instance_id: str) -> Instance | None:
        """The instance, or None where there is none. Raises TransientError where the disk cannot be read."""
        found = self._resident.get((app_id, instance_id))
        if found is None:
            row = self._store.find(app_id, instance_id)
            if row is None:
                return None
            found = self._load(row)
            self._resident[found.id] = found
            self.rest(found)
        return found

    def add(self, instance: Instance) -> None:
        """Make a new instance findable, in the place of an ended one of the same id."""
        replaced = self._resident.get(instance.id)
        if replaced is not None:
            self.forget(replaced)
        self._resident[instance.id] = instance

    def use(self, instance: Instance) -> None:
        """Keep it: a step of it begins."""
        self._resting_bytes -= self._dormant.pop(instance.id, 0) + self._idle.pop(instance.id, 0)

    def rest(self, instance: Instance) -> None:
        """It may be forgotten: no step of it is under way and all of it is on disk."""
        if self._resident.get(instance.id) is not instance:
            return
        self.use(instance)
        resting = self._dormant if instance.ended or not instance.state.tasks else self._idle
        resting[instance.id] = footprint = instance.size + _EVENT_BYTES * len(instance.history)
        self._resting_bytes += footprint
        if len(self._dormant) > _MAX_DORMANT_INSTANCES:
            self._drop_oldest(self._dormant)
        if len(self._idle) > _MAX_IDLE_INSTANCES:
            self._drop_oldest(self._idle)
        while self._resting_bytes > _MAX_IDLE_BYTES:
            self._drop_oldest(self._dormant or self._idle)

    def _drop_oldest(self, resting: OrderedDict[InstanceId, int]) -> None:
        oldest, footprint = resting.popitem(last=False)
        self._resting_bytes -= footprint
        del self._resident[oldest]

    def forget(self, instance: Instance) -> None:
        """It is no more: purged, replaced, or never committed."""
        instance.gone = True
        if self._resident.get(instance.id) is instance:
            self.use(instance)
            del self._resident[instance.id]

    def _load(self, row: InstanceRow) -> Instance:
        history = self._store.history(row.key)
        instance = Instance(row, fold(history), history, size=sum(event.ByteSize() for event in history))
        instance.inbox.extend(self._store.inbox(row.key))
        instance.loaded_rows.update(item.row for item in instance.inbox if item.row is not None)
        return instance


Condition = Callable[[Instance], bool]


class Watchers:
    """Those who wait for an instance to come to something, whether it exists yet or not."""

    def __init__(self) -> None:
        self._waiting: dict[InstanceId, list[tuple[Condition, asyncio.Future[Instance]]]] = {}

    async def until(self, instance_id: InstanceId, condition: Condition) -> Instance:
        """The instance once `condition` holds for it after one of its steps."""
        future: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiting.setdefault(instance_id, []).append(entry)
        try:
            return await future
        finally:
            self._drop(instance_id, entry)

    def notice(self, instance: Instance) -> None:
        """A step of the instance was committed."""
        waiting = self._waiting.get(instance.id)
        if waiting is not None:
            for condition, future in waiting:
                if not future.done() and condition(instance):
                    future.set_result(instance)

    def fail_all(self, error: Exception) -> None:
        for waiting in list(self._waiting.values()):
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)

    def _drop(self, instance_id: InstanceId, entry: "tuple[Condition, asyncio.Future[Instance]]") -> None:
        waiting = self._waiting.get(instance_id)
        if waiting is not None and entry in waiting:
            waiting.remove(entry)
            if not waiting:
                del self._waiting[instance_id]
