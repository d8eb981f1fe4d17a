"""Turns that are accepted: waiting for them, showing them, and steering them.

Steering is durable, and safe against the turn moving on meanwhile: a queued turn is steered in its session, a running
one through its workflow, and who finds that it is neither any more looks again.
"""

import asyncio
import logging
from dataclasses import dataclass

from everturn.chat.ending import end_turn_in_session
from everturn.chat.instances import has_ended
from everturn.chat.records import TurnRecord, save_record
from everturn.chat.services import TurnServices
from everturn.chat.session_store import MAX_CONFLICTS, StoredSession
from everturn.chat.sessions import Session, save_session
from everturn.chat.turn import FETCH_CONTEXT
from everturn.chat.turn_view import is_ending, status_of, view_of
from everturn.contracts.chat import Turn, TurnStatus
from everturn.errors import ConflictError, TerminalError, TransientError

log = logging.getLogger(__name__)

# While somebody waits for a turn, it is looked at this often: for a cancellation in the queue, a start that got lost.
_LOOK_EVERY_S = 1
# A running turn hears of its cancellation at once; longer only where its reply is being saved.
_CANCEL_WAIT_S = 5


@dataclass(frozen=True, slots=True)
class _Standing:
    record: TurnRecord
    etag: str
    stored: StoredSession
    status: TurnStatus


class Turns:
    """Watches and steers turns.

    Raises TerminalError: kind `not_found` for an unknown turn, `ended` for what only a turn that has not ended can do,
    `not_failed` for the rerun of one that has not failed.
    """

    def __init__(self, services: TurnServices) -> None:
        self._services = services
        self._waiting: set[asyncio.Timeout] = set()
        self._waiters_released = False

    def release_waiters(self) -> None:
        """Let nobody wait any longer: the process stops, and what is not done yet is done after the next start."""
        self._waiters_released = True
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def wait(self, turn_id: str, seconds: float) -> TurnRecord:
        """The turn's record once it has ended, or as it is after `seconds`, or when waiters are released.

        Outlasts a sidecar that is away.
        """
        record = (await self._services.records.get(turn_id)).record
        limit = asyncio.timeout(0 if self._waiters_released else seconds)
        try:
            async with limit:
                self._waiting.add(limit)
                while record.outcome is None:
                    record = await self._look_again(record)
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(limit)
        return record

    async def _look_again(self, record: TurnRecord) -> TurnRecord:
        """The record after the workflow's end, or after a moment in which what should run was seen to run."""
        try:
            over = await self._services.instances.wait(record.instance_id, _LOOK_EVERY_S)
            if not over:
                await self._nudge(record)
            now = (await self._services.records.get(record.turn_id)).record
            return await self._if_abandoned(now) if over and now.outcome is None else now
        except TransientError as error:
            log.warning("turn_out_of_sight", extra={"turn_id": record.turn_id, "reason": error.message})
            await asyncio.sleep(_LOOK_EVERY_S)
            return record

    async def _if_abandoned(self, record: TurnRecord) -> TurnRecord:
        """The record once the turn has ended, or runs again, where its workflow has ended and it had not."""
        workflow = await self._services.instances.state(record.instance_id)
        if workflow is not None and has_ended(workflow):
            await self._services.hand_over.end_abandoned(record, workflow)
        return (await self._services.records.get(record.turn_id)).record

    async def view(self, turn_id: str) -> Turn:
        """The turn as a client sees it. While it waits, what should run before it is seen to run."""
        standing = await self._standing(turn_id)
        if standing.status is TurnStatus.QUEUED:
            await self._nudge(standing.record)
        return await self._view(standing)

    async def cancel(self, turn_id: str) -> Turn:
        """End the turn without a reply. Once its reply is being saved it can only complete: then `ended` as well."""
        record = await self._services.records.change(turn_id, _with_cancel_requested)
        await self._take_from_queue(record)
        return await self._ended_by_cancel(turn_id)

    async def pause(self, turn_id: str) -> Turn:
        """Hold the turn, and with it its session, until it is resumed. What a step is doing now goes on."""
        return await self._hold(turn_id, paused=True)

    async def resume(self, turn_id: str) -> Turn:
        """Let a held turn go on; nothing for one that is not held."""
        return await self._hold(turn_id, paused=False)

    async def rerun(self, turn_id: str) -> Turn:
        """Put a failed turn to the end of its session, to begin again at the step that failed.

        Where other turns were accepted since, its context is fetched anew: it must see them.
        """
        for _ in range(MAX_CONFLICTS):
            standing = await self._standing(turn_id)
            outcome = standing.record.outcome
            if outcome is None or outcome.status is not TurnStatus.FAILED:
                raise TerminalError(f"turn {turn_id!r} has not failed: it is {standing.status}", kind="not_failed")
            rerun, session = await self._rerun_of(standing)
            saves = [
                save_record(rerun, etag=standing.etag),
                save_session(rerun.session_id, session, standing.stored.etag),
            ]
            try:
                await self._services.dapr.transact(saves)
            except ConflictError:
                continue
            await self._nudge(rerun)
            return await self.view(turn_id)
        raise TransientError(f"turn {turn_id!r} is changed too often at once", kind="conflict")

    async def _rerun_of(self, standing: _Standing) -> tuple[TurnRecord, Session]:
        record, session = standing.record, standing.stored.session
        changed, place = session.appended(record.turn_id)
        moved_on = session.next_sequence > record.sequence + 1
        past = (await self._view(standing)).steps
        rerun = record.model_copy(
            update={
                "run": record.run + 1,
                "sequence": place.sequence,
                "from_step": FETCH_CONTEXT if moved_on else record.outcome and record.outcome.step,
                "context": None if moved_on else record.context,
                "outcome": None,
                "cancel_requested": False,
                "past_steps": past,
                "purged": False,
            }
        )
        return rerun, changed

    async def _hold(self, turn_id: str, *, paused: bool) -> Turn:
        for _ in range(MAX_CONFLICTS):
            standing = await self._standing(turn_id)
            if standing.status.ended:
                raise _has_ended(standing)
            record, session = standing.record, standing.stored.session
            if (standing.status is TurnStatus.PAUSED) is paused:
                return await self._view(standing)
            place = session.place_of(turn_id)
            if place is not None and place.paused is not paused and not (paused and await self._runs(record)):
                changed = session.with_paused(turn_id, paused=paused)
                try:
                    await self._services.dapr.save_state(save_session(record.session_id, changed, standing.stored.etag))
                except ConflictError:
                    continue
                await self._services.hand_over.start_head(changed, perhaps_started=True)
            # Looked at after the session is written: whoever starts the turn meanwhile looks the other way round.
            if await self._runs(record):
                await (self._pause_running(record) if paused else self._services.instances.resume(record.instance_id))
            return await self.view(turn_id)
        raise TransientError(f"turn {turn_id!r} is changed too often at once", kind="conflict")

    async def _runs(self, record: TurnRecord) -> bool:
        return await self._services.instances.state(record.instance_id) is not None

    async def _pause_running(self, record: TurnRecord) -> None:
        """Suspend the turn's workflow, unless it ends the turn already: then the turn would end and never be over."""
        await self._services.instances.pause(record.instance_id)
        if is_ending(await self._services.instances.history(record.instance_id)):
            await self._services.instances.resume(record.instance_id)
            raise TerminalError(f"turn {record.turn_id!r} is ending", kind="ended")

    async def _take_from_queue(self, record: TurnRecord) -> None:
        """A turn without a workflow ends here; one with a workflow is told, and ends itself."""
        if await self._services.instances.state(record.instance_id) is None:
            await end_turn_in_session(self._services, record.turn_id, TurnStatus.CANCELLED)
        await self._services.instances.request_cancel(record.instance_id)

    async def _ended_by_cancel(self, turn_id: str) -> Turn:
        await self.wait(turn_id, _CANCEL_WAIT_S)
        standing = await self._standing(turn_id)
        if standing.status is TurnStatus.CANCELLED:
            return await self._view(standing)
        if standing.status.ended:
            raise _has_ended(standing)
        if self._waiters_released:
            raise TransientError(f"turn {turn_id!r} is cancelled after the next start", kind="stopping")
        raise TerminalError(f"the reply of turn {turn_id!r} is being saved: it can only complete", kind="ended")

    async def _nudge(self, record: TurnRecord) -> None:
        """Start what should run and does not, after a crash between two writes."""
        try:
            stored = await self._services.sessions.get(record.session_id, record.user_id)
            await self._services.hand_over.start_head(stored.session, perhaps_started=True)
        except TransientError as error:
            log.warning("turn_not_started", extra={"turn_id": record.turn_id, "reason": error.message})

    async def _standing(self, turn_id: str) -> _Standing:
        found = await self._services.records.get(turn_id)
        record = found.record
        stored = await self._services.sessions.get(record.session_id, record.user_id)
        workflow = None if record.outcome else await self._services.instances.state(record.instance_id)
        if workflow is not None and has_ended(workflow):
            await self._services.hand_over.end_abandoned(record, workflow)
            return await self._standing(turn_id)
        return _Standing(record, found.etag, stored, status_of(record, stored.session, workflow))

    async def _view(self, standing: _Standing) -> Turn:
        record = standing.record
        history = [] if record.purged else await self._services.instances.history(record.instance_id)
        return view_of(record, standing.status, history)


def _with_cancel_requested(record: TurnRecord) -> TurnRecord | None:
    if record.outcome is not None and record.outcome.status is not TurnStatus.CANCELLED:
        raise TerminalError(f"turn {record.turn_id!r} has ended: it is {record.outcome.status}", kind="ended")
    return None if record.cancel_requested else record.model_copy(update={"cancel_requested": True})


def _has_ended(standing: _Standing) -> TerminalError:
    return TerminalError(f"turn {standing.record.turn_id!r} has ended: it is {standing.status}", kind="ended")
