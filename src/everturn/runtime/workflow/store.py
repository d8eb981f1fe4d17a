"""Workflow instances on disk: what a commit writes in one transaction, and what recovery reads."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import apsw

from everturn.dapr.sdk import protocol as pb
from everturn.errors import ConflictError
from everturn.runtime.database.database import Database
from everturn.runtime.workflow.core.state import Arrived, Status

# Id of the "timer" that stands for a start at a later time; workflows number their own timers from 0 up.
START_TIMER_ID = -1


# App id and instance id.
InstanceId = tuple[str, str]


class InstanceRow(NamedTuple):
    key: int
    app_id: str
    instance_id: str
    name: str
    status: Status
    custom_status: str | None
    is_child: bool
    created_at: float
    completed_at: float | None
    propagated: bytes | None = None


class ActivityRow(NamedTuple):
    """A pending activity; its taskScheduled is event `task_id` of the history row that begins at `n`."""

    key: int
    task_id: int
    n: int
    app_id: str
    execution_id: str


class TimerRow(NamedTuple):
    key: int
    timer_id: int
    fire_at: float
    execution_id: str


@dataclass(frozen=True, slots=True)
class ActivityTask:
    """An activity to run at `app_id`: whose it is, and its taskScheduled."""

    owner: InstanceId
    key: int
    execution_id: str
    app_id: str
    scheduled: pb.HistoryEvent
    propagated: pb.PropagatedHistory | None = None


@dataclass(slots=True)
class RowChanges:
    """All that one commit changes on disk, in the order in which it is written."""

    removed: list[tuple[int]] = field(default_factory=list)
    restarted: list[tuple[int]] = field(default_factory=list)
    instances: list[InstanceRow] = field(default_factory=list)
    updates: list[tuple[Status, str | None, float | None, int]] = field(default_factory=list)
    history: list[tuple[int, int, bytes]] = field(default_factory=list)
    taken: list[tuple[int]] = field(default_factory=list)
    inbox: list[tuple[int, int, str | None, bytes]] = field(default_factory=list)
    closed_activities: list[tuple[int, int]] = field(default_factory=list)
    activities: list[ActivityRow] = field(default_factory=list)
    closed_timers: list[tuple[int, int]] = field(default_factory=list)
    timers: list[TimerRow] = field(default_factory=list)

    def write(self, cursor: apsw.Cursor) -> None:
        if self.removed:
            for sql in _REMOVE:
                cursor.executemany(sql, self.removed)
        changes: tuple[tuple[str, Sequence[tuple[Any, ...]]], ...] = (
            (_REMOVE_HISTORY, self.restarted),
            (_INSERT_INSTANCE, self.instances),
            (_UPDATE_INSTANCE, self.updates),
            (_INSERT_HISTORY, self.history),
            (_TAKE_INBOX, self.taken),
            (_INSERT_INBOX, self.inbox),
            (_CLOSE_ACTIVITY, self.closed_activities),
            (_INSERT_ACTIVITY, self.activities),
            (_CLOSE_TIMER, self.closed_timers),
            (_INSERT_TIMER, self.timers),
        )
        for sql, rows in changes:
            if rows:
                cursor.executemany(sql, rows)


class WorkflowStore:
    """Reads are of the last commit, in the caller's thread: each is a few indexed rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys = count(1)
        self._inbox_rows = count(1)

    def recover_counters(self) -> None:
        """Continue the numbers that this process gives out after those on disk. Raises TransientError."""
        self._keys = count(1 + self._database.read("SELECT ifnull(max(key), 0) FROM workflow_instances")[0][0])
        self._inbox_rows = count(1 + self._database.read("SELECT ifnull(max(n), 0) FROM workflow_inbox")[0][0])

    def new_key(self) -> int:
        return next(self._keys)

    def new_inbox_row(self) -> int:
        return next(self._inbox_rows)

    async def commit(self, rows: RowChanges) -> None:
        """Write `rows` in one transaction; on disk when it returns.

        Raises TransientError if the disk refuses, ConflictError if an instance of the same id was created
        meanwhile; then nothing was written.
        """
        try:
            await self._database.write(rows.write)
        except apsw.ConstraintError as error:
            raise ConflictError("an instance of the same id was created meanwhile") from error

    async def drop_orphans(self) -> None:
        """Delete events that no instance can ever take. Raises TransientError."""
        if self._database.read(_FIND_ORPHAN):
            await self._database.write(_delete_orphans)

    def find(self, app_id: str, instance_id: str) -> InstanceRow | None:
        rows = self._database.read(_FIND, (app_id, instance_id))
        return _instance_row(rows[0]) if rows else None

    def history(self, key: int) -> list[pb.HistoryEvent]:
        blobs = self._database.read("SELECT events FROM workflow_history WHERE key = ? ORDER BY n", (key,))
        return events_of(b"".join([blob for (blob,) in blobs]))

    def inbox(self, key: int) -> list[Arrived]:
        rows = self._database.read("SELECT n, execution_id, event FROM workflow_inbox WHERE key = ? ORDER BY n", (key,))
        return [Arrived(pb.HistoryEvent.FromString(event), execution_id, n) for n, execution_id, event in rows]

    def with_inbox(self, app_id: str) -> list[tuple[str, int]]:
        """Instances of the app that have events to take now, as (instance id, key); a later start is not due yet."""
        return [(instance_id, key) for instance_id, key in self._database.read(_WITH_INBOX, (app_id, START_TIMER_ID))]

    def pending_activities(self, app_id: str) -> Iterator[list[ActivityTask]]:
        """Activities that `app_id` has to run, oldest first, page by page; each page is read when it is asked for."""
        after = (-1, -1)
        while rows := self._database.read(_PENDING_ACTIVITIES, (app_id, *after)):
            yield [
                ActivityTask((owner, instance_id), key, execution_id, app_id, _scheduled_in(events, task_id))
                for key, task_id, execution_id, owner, instance_id, events in rows
            ]
            after = (rows[-1][0], rows[-1][1])

    def timers(self) -> list[tuple[InstanceId, TimerRow]]:
        return [
            ((app_id, instance_id), TimerRow(key, timer_id, fire_at, execution_id))
            for app_id, instance_id, key, timer_id, fire_at, execution_id in self._database.read(_TIMERS)
        ]

    def unfinished(self) -> dict[str, int]:
        """By workflow name, how many instances are neither ended nor somebody's children."""
        sql = "SELECT name, count(*) FROM workflow_instances WHERE completed_at IS NULL AND NOT is_child GROUP BY name"
        return {str(name): int(count) for name, count in self._database.read(sql)}

    def instance_ids(self, app_id: str, after: str, limit: int) -> list[str]:
        return [instance_id for (instance_id,) in self._database.read(_LIST, (app_id, after, limit))]

    def created_between(self, app_id: str, start: float, end: float, statuses: Container[Status]) -> list[str]:
        """Ids of the app's instances that were created in [start, end) and have one of `statuses`."""
        rows = self._database.read(_CREATED, (app_id, start, end))
        return [instance_id for instance_id, status in rows if status in statuses]


def encode_events(events: Sequence[pb.HistoryEvent]) -> bytes:
    """The events of a history row."""
    return bytes(pb.GetInstanceHistoryResponse(events=events).SerializeToString())


def events_of(blob: bytes) -> list[pb.HistoryEvent]:
    """The events of history rows, also of several that were joined: so protobuf defines repeated fields."""
    return list(pb.GetInstanceHistoryResponse.FromString(blob).events)


def _scheduled_in(blob: bytes, task_id: int) -> pb.HistoryEvent:
    return next(event for event in events_of(blob) if event.eventId == task_id and event.HasField("taskScheduled"))


def _instance_row(row: tuple[object, ...]) -> InstanceRow:
    made = InstanceRow._make(row)
    return made._replace(status=Status(made.status), is_child=bool(made.is_child))


def _delete_orphans(cursor: apsw.Cursor) -> None:
    cursor.execute(_DELETE_ORPHANS)


_INSERT_INSTANCE = "INSERT INTO workflow_instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_INSTANCE = "UPDATE workflow_instances SET status = ?, custom_status = ?, completed_at = ? WHERE key = ?"
_INSERT_HISTORY = "INSERT INTO workflow_history VALUES (?, ?, ?)"
_REMOVE_HISTORY = "DELETE FROM workflow_history WHERE key = ?"
_INSERT_INBOX = "INSERT INTO workflow_inbox VALUES (?, ?, ?, ?)"
_TAKE_INBOX = "DELETE FROM workflow_inbox WHERE n = ?"
_INSERT_ACTIVITY = "INSERT INTO workflow_activities VALUES (?, ?, ?, ?, ?)"
_CLOSE_ACTIVITY = "DELETE FROM workflow_activities WHERE key = ? AND task_id = ?"
_INSERT_TIMER = "INSERT INTO workflow_timers VALUES (?, ?, ?, ?)"
_CLOSE_TIMER = "DELETE FROM workflow_timers WHERE key = ? AND timer_id = ?"
_REMOVE = (
    "DELETE FROM workflow_instances WHERE key = ?",
    _REMOVE_HISTORY,
    "DELETE FROM workflow_inbox WHERE key = ?",
    "DELETE FROM workflow_activities WHERE key = ?",
    "DELETE FROM workflow_timers WHERE key = ?",
)
_FIND_ORPHAN = """
    SELECT 1 FROM workflow_inbox
    WHERE key NOT IN (SELECT key FROM workflow_instances WHERE completed_at IS NULL) LIMIT 1
"""
_DELETE_ORPHANS = """
    DELETE FROM workflow_inbox WHERE key NOT IN (SELECT key FROM workflow_instances WHERE completed_at IS NULL)
"""
_FIND = "SELECT * FROM workflow_instances WHERE app_id = ? AND instance_id = ?"
_LIST = """
    SELECT instance_id FROM workflow_instances WHERE app_id = ? AND instance_id > ? ORDER BY instance_id LIMIT ?
"""
_CREATED = """
    SELECT instance_id, status FROM workflow_instances WHERE app_id = ? AND created_at >= ? AND created_at < ?
"""
_WITH_INBOX = """
    SELECT DISTINCT i.instance_id, i.key FROM workflow_inbox AS b JOIN workflow_instances AS i ON i.key = b.key
    WHERE i.app_id = ? AND NOT EXISTS (SELECT 1 FROM workflow_timers AS t WHERE t.key = i.key AND t.timer_id = ?)
    ORDER BY i.key
"""
_PENDING_ACTIVITIES = """
    SELECT a.key, a.task_id, a.execution_id, i.app_id, i.instance_id, h.events
    FROM workflow_activities AS a
    JOIN workflow_instances AS i ON i.key = a.key
    JOIN workflow_history AS h ON h.key = a.key AND h.n = a.n
    WHERE a.app_id = ? AND (a.key, a.task_id) > (?, ?) ORDER BY a.key, a.task_id LIMIT 500
"""
_TIMERS = """
    SELECT i.app_id, i.instance_id, t.key, t.timer_id, t.fire_at, t.execution_id
    FROM workflow_timers AS t JOIN workflow_instances AS i ON i.key = t.key
"""
