"""Sessions in the state store, and the hand-over from one turn of a session to the next."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.chat.instances import TurnInstances, has_ended
from everturn.chat.records import TurnRecord, TurnRecords
from everturn.chat.sessions import Session, parse_session, save_session, session_key
from everturn.errors import ConflictError, TransientError
from everturn.sidecar.client import DaprClient, StateItem

MAX_CONFLICTS = 20


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session with the ETag under which it was read; None where it is new."""

    session: Session
    etag: str | None


def read_session(item: StateItem | None, user_id: str) -> StoredSession:
    """The session behind `item`; a new one of `user_id` where there is none."""
    if item is None:
        return StoredSession(Session(user_id=user_id), None)
    return StoredSession(parse_session(item), item.etag)


class SessionStore:
    """Reads and changes sessions."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def get(self, session_id: str, user_id: str) -> StoredSession:
        return read_session(await self._dapr.get_state(session_key(session_id)), user_id)

    async def change(self, session_id: str, user_id: str, change: Callable[[Session], Session | None]) -> Session:
        """Store what `change` makes of the session as it is now, nothing where that is None. Returns what holds."""
        for _ in range(MAX_CONFLICTS):
            stored = await self.get(session_id, user_id)
            changed = change(stored.session)
            if changed is None:
                return stored.session
            try:
                await self._dapr.save_state(save_session(session_id, changed, stored.etag))
            except ConflictError:
                continue
            return changed
        raise TransientError(f"session {session_id!r} is changed too often at once", kind="conflict")


# `abandoned.end_abandoned` over the services of this process.
EndAbandoned = Callable[[TurnRecord, WorkflowState | None], Awaitable[None]]


class HandOver:
    """Sees to it that the head of a session's queue runs.

    `end_abandoned` ends a turn whose workflow has ended without it, or whose session has not heard of its end, and
    starts the next.
    """

    def __init__(
        self, records: TurnRecords, sessions: SessionStore, instances: TurnInstances, end_abandoned: EndAbandoned
    ) -> None:
        self._records = records
        self._sessions = sessions
        self._instances = instances
        self.end_abandoned = end_abandoned

    async def start_head(self, session: Session, *, perhaps_started: bool) -> None:
        """Start the head's workflow unless the head is paused or (`perhaps_started`) has one already.

        A head that has ended, or whose workflow has, is taken off and the next one started: a crash, an operator or a
        bug can leave it there. One whose workflow was purged without an end is started again. Starting twice is
        harmless, as long as the first has not ended: the engine knows the instance id.
        """
        head = session.head
        found = await self._records.find(head.turn_id) if head else None
        if head is None or found is None:
            return
        record = found.record
        if record.outcome is not None:
            await self.end_abandoned(record, None)
            return
        if head.paused:
            return
        workflow = await self._instances.state(record.instance_id) if perhaps_started else None
        if workflow is not None:
            if has_ended(workflow):
                await self.end_abandoned(record, workflow)
            return
        await self._instances.start(record)
        # Who paused it meanwhile wrote that into the session, and may have looked for its workflow too early.
        place = (await self._sessions.get(record.session_id, record.user_id)).session.place_of(record.turn_id)
        if place is not None and place.paused:
            await self._instances.pause(record.instance_id)
