"""Turns that are accepted: showing them, and steering them.

Steering is durable, and safe against the turn moving on meanwhile: a cancellation is a fact, a queued turn is held in
its session, a running one through its workflow.
"""

import asyncio
import logging
from dataclasses import dataclass

from dapr.ext.workflow import WorkflowHistoryEvent
from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.chat.calls import Decision, calls_of, decision_key, pauses_of, shown_approvals, shown_calls
from everturn.chat.facts import Cancelled, TurnFacts, TurnRun
from everturn.chat.journal import Journal, unknown_turn
from everturn.chat.maintenance import AbandonedTurns, keep_steps
from everturn.chat.metrics import InFlight
from everturn.chat.queue import SessionQueue
from everturn.chat.recording import recording_of
from everturn.chat.session import Session, check_not_taken
from everturn.chat.turn_view import is_ending, status_of, view_of, waits_for_person
from everturn.chat.user_index import UserIndexes
from everturn.chat.workflow.step_runner import DECIDED_EVENT
from everturn.contracts.chat import ApprovalDecision, Overlap, Turn, TurnStatus
from everturn.contracts.fields import to_wire, utc_now
from everturn.contracts.recording import Recording
from everturn.dapr.workflows import Workflows, has_ended, has_not_begun
from everturn.errors import TerminalError, TransientError

log = logging.getLogger(__name__)

# Between looks at a history that is behind the facts of its turn.
_HISTORY_PAUSES_S = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    facts: TurnFacts
    session: Session
    workflow: WorkflowState | None

    @property
    def run(self) -> TurnRun:
        return self.facts.run

    @property
    def status(self) -> TurnStatus:
        return status_of(self.facts, self.session, self.workflow)

    @property
    def is_head(self) -> bool:
        return self.session.head is not None and self.session.head.is_of(self.run)


@dataclass(eq=False, slots=True)
class Turns:
    """Shows and steers turns.

    Raises TerminalError: kind `not_found` for an unknown turn, `ended` for what only a turn that has not ended can do,
    `not_failed` for the rerun of one that has not failed.
    """

    _journal: Journal
    _queue: SessionQueue
    _abandoned: AbandonedTurns
    _workflows: Workflows
    _limiter: InFlight
    _indexes: UserIndexes

    async def check_owner(self, turn_id: str, user_id: str | None) -> None:
        """Raises TerminalError (kind `not_found`) if the turn is not of `user_id`; None may see every turn."""
        if user_id is None:
            return
        run = await self._journal.run(turn_id, 0)
        if run is None or run.accepted.user_id != user_id:
            raise unknown_turn(turn_id)

    async def facts(self, turn_id: str) -> TurnFacts:
        """What the journal has of the latest run of the turn."""
        return await self._journal.get(turn_id)

    async def view(self, turn_id: str, *, with_content: bool = False) -> Turn:
        """The turn as a client sees it. While it waits, make sure that the head of its session runs.

        `with_content`: with its text, and the arguments and answers of its calls.
        """
        snapshot = await self._snapshot(turn_id)
        if snapshot.status is TurnStatus.QUEUED or has_not_begun(snapshot.workflow):
            await self._ensure_queued(snapshot)
        return await self._view(snapshot, with_content=with_content)

    async def look(self, turn_id: str, *, with_content: bool = False) -> Turn | None:
        """As `view`, but starts nothing; None for an unknown turn."""
        try:
            return await self._view(await self._snapshot(turn_id), with_content=with_content)
        except TerminalError as error:
            if error.kind != "not_found":
                raise
            return None

    async def cancel(self, turn_id: str) -> Turn:
        """End the turn without a reply. With its reply it can only complete: then `ended`.

        Raises TerminalError (kind `merged`) if another turn has taken its message up.
        """
        facts = await self._journal.get(turn_id)
        if facts.outcome is not None and facts.outcome.status is not TurnStatus.CANCELLED:
            raise TerminalError(f"turn {turn_id!r} has ended: it is {facts.outcome.status}", kind="ended")
        if not isinstance(await self._abandoned.cancel(facts.run), Cancelled):
            raise TerminalError(f"turn {turn_id!r} is ending: it has a reply or has failed", kind="ended")
        return await self.view(turn_id)

    async def recording(self, turn_id: str) -> Recording:
        """What a replay of the turn needs. Raises as `recording_of`."""
        return await recording_of(self._journal, await self.facts(turn_id))

    async def decide(self, turn_id: str, call_id: str, given: ApprovalDecision) -> Turn:
        """Decide about a call that the turn waits for; the same decision again changes nothing.

        Raises TerminalError: `not_found` for another call, `decided` if it was decided otherwise.
        """
        facts = await self._journal.get(turn_id)
        run, calls = facts.run, await calls_of(self._journal, facts.run)
        if call_id not in {one.call_id for pause in pauses_of(calls) for one in pause.asked}:
            raise TerminalError(f"turn {turn_id!r} does not wait for a call {call_id!r}", kind="not_found")
        ours = Decision(decision=given.decision, reason=given.reason, at=to_wire(utc_now()))
        key = decision_key(run, call_id)
        decision: Decision | None
        if facts.outcome is None:
            decision = await self._journal.write(key, ours)
        else:
            decision = (await self._journal.read_all({key: Decision})).get(key)
        if decision is None:
            raise TerminalError(
                f"turn {turn_id!r} has ended: it is {facts.outcome and facts.outcome.status}", kind="ended"
            )
        if decision.decision != ours.decision:
            raise TerminalError(f"the call {call_id!r} was decided: {decision.decision}", kind="decided")
        if facts.outcome is None:
            await self._workflows.raise_event(run.instance_id, DECIDED_EVENT)
        return await self.view(turn_id)

    async def look_after(self, run: TurnRun) -> bool:
        """Make sure that `run` goes on, with its session, or ends; whether a person has to decide first."""
        await self._abandoned.ensure_head_runs(run)
        if run.overlap == Overlap.MERGE:  # perhaps as a part of another turn
            return (await self._snapshot(run.turn_id)).status is TurnStatus.WAITING
        workflow = await self._workflows.state(run.instance_id)
        if workflow is not None and has_ended(workflow) and await self._journal.outcome(run) is None:
            await self._abandoned.end(run, workflow)
        return waits_for_person(workflow)

    async def is_asking(self, run: TurnRun) -> bool:
        """Whether a person has to decide before `run`, or the turn that has taken its message up, goes on."""
        if await shown_approvals(self._journal, run):
            return True
        return (await self._snapshot(run.turn_id)).status is TurnStatus.WAITING

    async def asked_at(self, run: TurnRun, call_id: str) -> int | None:
        """The number of the call by which `run` stopped to ask about that one; None if it did not."""
        for number, call in enumerate(await calls_of(self._journal, run), start=1):
            if any(one.call_id == call_id for pause in pauses_of([call]) for one in pause.asked):
                return number
        return None

    async def pause(self, turn_id: str) -> Turn:
        """Hold the turn, and with it its session, until it is resumed. What a step is doing now is done first."""
        snapshot = await self._unended(turn_id)
        check_not_taken(snapshot.session, snapshot.run)
        if snapshot.status is TurnStatus.PAUSED:
            return await self._view(snapshot)
        if not (snapshot.is_head and snapshot.workflow):
            await self._queue.hold(snapshot.run, paused=True)
            # Read after the session is written: whatever starts the turn meanwhile sees that it is held.
            snapshot = await self._unended(turn_id)
        if snapshot.is_head and snapshot.workflow:
            await self._pause_running(snapshot.run)
        return await self.view(turn_id)

    async def resume(self, turn_id: str) -> Turn:
        """Let a held turn run again; nothing for one that is not held."""
        snapshot = await self._unended(turn_id)
        if snapshot.status is TurnStatus.PAUSED:
            session = await self._queue.hold(snapshot.run, paused=False)
            await self._workflows.resume(snapshot.run.instance_id)
            if session.head is not None and session.head.is_of(snapshot.run):
                await self._queue.start_head(session, snapshot.run.accepted.session_id)
            snapshot = await self._snapshot(turn_id)
        return await self._view(snapshot)

    async def rerun(self, turn_id: str) -> Turn:
        """Put a failed turn to the end of its session, to begin again as a run of its own, with a fresh context.

        The place is written before the fact that the run was asked for, which its workflow writes as well: a crash in
        between leaves either nothing or a run that needs nobody. It counts as an open turn of the user, before it is
        asked for: TransientError (kind `too_many_open`) if there are too many.
        """
        snapshot = await self._snapshot(turn_id)
        outcome = snapshot.facts.outcome
        if outcome is None or outcome.status is not TurnStatus.FAILED:
            raise TerminalError(f"turn {turn_id!r} has not failed: it is {snapshot.status}", kind="not_failed")
        self._limiter.refuse_more()
        run = TurnRun(turn_id, snapshot.run.number + 1, snapshot.run.accepted)
        await self._indexes.open_again(run)
        await keep_steps(self._journal, self._workflows, snapshot.facts)
        await self._journal.open_again(run)
        await self._queue.enter(run, is_new=False)
        await self._journal.ask(run)
        return await self.view(turn_id)

    async def _pause_running(self, run: TurnRun) -> None:
        """Suspend the turn's workflow, unless it ends the turn already: then the turn would end and never be over."""
        await self._workflows.pause(run.instance_id)
        if is_ending(await self._workflows.history(run.instance_id)):
            await self._queue.hold(run, paused=False)
            await self._workflows.resume(run.instance_id)
            raise TerminalError(f"turn {run.turn_id!r} is ending", kind="ended")

    async def _ensure_queued(self, snapshot: _Snapshot) -> None:
        """Finish what a crash between two writes left: a run without a place, a head without a workflow."""
        run = snapshot.run
        try:
            if snapshot.session.place_of(run) is None and snapshot.workflow is None:
                await self._queue.enter(run, is_new=False)
            await self._abandoned.ensure_head_runs(run)
        except TransientError as error:
            log.warning("turn_not_started", extra={"turn_id": run.turn_id, "reason": error.message})
        except TerminalError:
            raise unknown_turn(run.turn_id) from None  # it is refused now: nobody had heard that it was accepted

    async def _unended(self, turn_id: str) -> _Snapshot:
        snapshot = await self._snapshot(turn_id)
        if snapshot.status.ended:
            raise TerminalError(f"turn {turn_id!r} has ended: it is {snapshot.status}", kind="ended")
        return snapshot

    async def _snapshot(self, turn_id: str) -> _Snapshot:
        """The turn as it stands; one that its workflow has left is ended before."""
        while True:
            facts = await self._journal.get(turn_id)
            workflow = None if facts.outcome else await self._workflows.state(facts.run.instance_id)
            if workflow is None or not has_ended(workflow):
                session = await self._queue.session_of(facts.run)
                has_left = facts.outcome is None and session.place_of(facts.run) is None
                if has_left and await self._journal.outcome(facts.run) is not None:
                    continue  # it has ended between the reads
                place = session.place_of(facts.run)
                if place is not None and session.taker_of(place):
                    workflow = await self._workflows.state(place.into)
                return _Snapshot(facts, session, workflow)
            if await self._journal.outcome(facts.run) is None:
                await self._abandoned.end(facts.run, workflow)

    async def _history(self, facts: TurnFacts) -> list[WorkflowHistoryEvent]:
        """The history of a run, with its last step if it is completed: Dapr gives a step out before that is written."""
        for pause_s in _HISTORY_PAUSES_S:
            history = await self._workflows.history(facts.run.instance_id)
            is_completed = facts.outcome is not None and facts.outcome.status is TurnStatus.COMPLETED
            if not (is_completed and history) or is_ending(history):
                return history
            await asyncio.sleep(pause_s)
        return await self._workflows.history(facts.run.instance_id)

    async def _view(self, snapshot: _Snapshot, *, with_content: bool = False) -> Turn:
        facts = snapshot.facts
        history = [] if facts.steps is not None else await self._history(facts)
        turn = view_of(facts, snapshot.session, snapshot.workflow, history)
        turn.text = facts.run.accepted.text if with_content else None
        if turn.steps:
            turn.calls = await shown_calls(self._journal, facts, with_content=with_content)
        if snapshot.status in (TurnStatus.WAITING, TurnStatus.PAUSED):
            turn.approvals = await shown_approvals(self._journal, facts.run)
        return turn
