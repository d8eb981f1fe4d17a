"""What keeps sessions going and the store small: turns that their workflow has left are ended, and workflows purged.

A workflow leaves its turn without an end if an operator terminates or purges it, or if a bug fails it. Nothing else
would end the turn, and it would hold its session for ever. Every look ends it: the next message of the session, a
client that waits, `GET /turns/{id}`, the purge. Several may do so at once: the first write counts.

Workflows of ended turns are purged once their steps are kept as a fact; facts and claims end by their time to live.
Every replica may purge at any time.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dapr.ext.workflow import WorkflowStatus
from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.chat.ending import Ending
from everturn.chat.facts import Cancelled, Failed, KeptSteps, TurnFacts, TurnRun, Verdict, run_of_instance
from everturn.chat.journal import Journal
from everturn.chat.queue import SessionQueue
from everturn.chat.session import QueuedTurn
from everturn.chat.turn_view import ended_steps, steps_of
from everturn.chat.workflow.chat_turn import FETCH_CONTEXT, HANDLE_ERROR
from everturn.chat.workflow.step_runner import CANCEL_EVENT
from everturn.contracts.chat import Overlap, Step
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.workflows import Workflows, has_ended, has_not_begun
from everturn.errors import EverturnError, TerminalError

# So many instances in a row that cannot be purged are trouble with the store, not with them.
_MOST_FAILURES = 20
# Ids that are kept, so as to wake a workflow once.
_MOST_WOKEN = 10_000

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class AbandonedTurns:
    """Ends them, and sees to it that the head of a session runs."""

    _journal: Journal
    _queue: SessionQueue
    _ending: Ending
    _workflows: Workflows
    # Whose workflow had not begun when it was looked at. Dapr can lose a start: if the caller leaves as the state is
    # written, the reminder finds none, and is gone (pkg/actors/targets/workflow/orchestrator/run.go). An event begins
    # it; one is enough, since it has a reminder of its own.
    _woken: set[str] = field(default_factory=set, init=False)

    async def end(self, run: TurnRun, workflow: WorkflowState) -> None:
        """End a run whose `workflow` has ended.

        With its reply it completes. Without a verdict a terminated workflow is a cancelled turn, any other a failed one
        (kind `workflow_failed`).
        """
        verdict = await self._journal.verdict(run)
        if verdict is None:
            status, at = workflow.runtime_status, to_wire(utc_now())
            ids = {"turn_id": run.turn_id, "instance_id": run.instance_id}
            log.error("turn_abandoned", extra={**ids, "workflow": status.name})
            if status is WorkflowStatus.TERMINATED:
                verdict = await self._journal.write_verdict(run, Cancelled(at=at))
            else:
                verdict = await self._journal.write_verdict(run, await self._failure(run, at))
        await self._ending.finish(run, verdict)

    async def cancel(self, run: TurnRun) -> Verdict:
        """End `run` without a reply, unless it has a verdict already; the one that counts.

        Raises TerminalError (kind `merged`) if another turn has taken its message up.
        """
        if run.overlap == Overlap.MERGE:
            await self._queue.keep_apart(run)
        verdict = await self._journal.write_verdict(run, Cancelled(at=to_wire(utc_now())))
        if isinstance(verdict, Cancelled):
            # What its workflow begins before it gets the event is not shown: an ended turn never looks different.
            await _keep(self._journal, run, steps_of(await self._workflows.history(run.instance_id)))
            await self._ending.finish(run, verdict)
            await self._workflows.raise_event(run.instance_id, CANCEL_EVENT)
            await self._workflows.resume(run.instance_id)
        return verdict

    async def ensure_head_runs(self, waiting: TurnRun) -> None:
        """Start the head of this run's session if it has no workflow; one that has ended, or has no facts, is taken off
        before.

        What a later message interrupts is cancelled first.
        """
        session_id, is_first = waiting.accepted.session_id, True
        while True:
            session = await self._queue.session_of(waiting)
            if is_first and session.interrupted:
                is_first = False
                await self._cancel_all(session.interrupted)
                continue
            head = session.head
            if head is None:
                return None
            facts = await self._journal.find(head.turn_id)
            if facts is None:
                await self._queue.drop(session_id, head.turn_id)
                continue
            if not head.is_of(facts.run):
                await self._queue.end(TurnRun(head.turn_id, head.run or 0, facts.run.accepted))
                continue
            run, workflow = facts.run, None if facts.outcome else await self._workflows.state(facts.run.instance_id)
            if facts.outcome is not None:
                await self._ending.leave(run, facts.verdict, facts.outcome)
            elif workflow is None:
                return await self._queue.start_head(session, session_id)
            elif has_ended(workflow):
                await self.end(run, workflow)
            else:
                if has_not_begun(workflow) and run.instance_id not in self._woken:
                    await self._queue.start_head(session, session_id)  # it exists, so this wakes it
                    self._keep_woken(run)
                return None

    def _keep_woken(self, run: TurnRun) -> None:
        if len(self._woken) >= _MOST_WOKEN:
            self._woken.clear()  # one event more does no harm
        self._woken.add(run.instance_id)

    async def _cancel_all(self, places: Sequence[QueuedTurn]) -> None:
        """The last one first, so that none of them is started when the one before it has ended."""
        for place in reversed(places):
            facts = await self._journal.find(place.turn_id)
            if facts is not None and facts.outcome is None and place.is_of(facts.run):
                with suppress(TerminalError):  # it is merged, and ends with one before it
                    await self.cancel(facts.run)

    async def _failure(self, run: TurnRun, at: str) -> Failed:
        steps = steps_of(await self._workflows.history(run.instance_id))
        last = next((step for step in reversed(steps) if step.name != HANDLE_ERROR), None)
        return Failed(
            step=last.name if last else FETCH_CONTEXT,
            attempts=last.attempts if last else 0,
            kind="workflow_failed",
            message="the workflow of the turn failed",
            at=at,
        )


@dataclass(eq=False, slots=True)
class Purge:
    """Purges instances that ended more than `keep_hours` ago."""

    _journal: Journal
    _abandoned: AbandonedTurns
    _workflows: Workflows
    keep_hours: float

    async def run(self, now: datetime) -> int:
        """How many were purged. One that cannot be, because its facts cannot be read, is logged and passed over."""
        purged = failed = 0
        async for instance_id in self._workflows.ended_before(now - timedelta(hours=self.keep_hours)):
            try:
                purged += await self._purge(instance_id)
                failed = 0
            except EverturnError as error:
                log.warning("instance_not_purged", extra={"instance_id": instance_id, "reason": error.message})
                failed += 1
                if failed >= _MOST_FAILURES:
                    raise
        return purged

    async def _purge(self, instance_id: str) -> bool:
        """Keep the steps of the latest run of a turn; those of earlier runs are kept, a deferred event has none."""
        turn_id, number = run_of_instance(instance_id)
        facts = await self._journal.find(turn_id)
        if facts is not None and facts.run.number == number:
            workflow = await self._workflows.state(instance_id)
            if facts.outcome is None and workflow is not None:
                await self._abandoned.end(facts.run, workflow)
                return False
            await keep_steps(self._journal, self._workflows, facts)
        await self._workflows.purge(instance_id)
        return True


async def keep_steps(journal: Journal, workflows: Workflows, facts: TurnFacts) -> None:
    """Write the steps of an ended run as a fact, unless they are one."""
    if facts.steps is None and facts.outcome is not None:
        # The step that wrote the outcome may not be over in the history yet.
        steps = steps_of(await workflows.history(facts.run.instance_id), facts.outcome)
        await _keep(journal, facts.run, ended_steps(steps, facts.outcome))


async def _keep(journal: Journal, run: TurnRun, steps: Sequence[Step]) -> None:
    kept = KeptSteps(steps=[step.model_dump(mode="json", exclude_none=True) for step in steps])
    await journal.write(run.key("steps"), kept)
