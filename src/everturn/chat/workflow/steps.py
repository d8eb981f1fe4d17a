"""Which steps a turn takes, in their order, and the edge of each attempt: its time limit, its log line, its error."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime

from everturn import tracing
from everturn.chat.facts import run_of_instance
from everturn.chat.journal import unknown_turn
from everturn.chat.metrics import ChatMetrics, InFlight
from everturn.chat.workflow import activities
from everturn.chat.workflow.activities import Step, StepCall, TurnParts
from everturn.chat.workflow.step_runner import CANCELLED, NOT_ITS_TURN, WAITS_UNTIL, Policies, encode_fault
from everturn.contracts.events import CHAT_APP_ID
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.settings import Settings

log = logging.getLogger(__name__)

# The steps of a turn, in their order.
STEPS = (
    activities.fetch_context,
    activities.generate_response,
    activities.save_conversation,
)
# What else a workflow may call: how a turn ends that does not complete, and what version 1 calls.
OTHERS = (activities.handle_error, activities.end_turn, activities.defer_event)
# Of a turn without facts there is nothing left to do for these.
_MAY_BE_GONE = (*OTHERS, activities.fetch_context, activities.save_conversation)


def policies_from(settings: Settings) -> Policies:
    return Policies(steps={step.name: step.policy(settings) for step in STEPS})


@dataclass(eq=False, slots=True)
class StepAttempts:
    """Runs attempts of steps with `parts`, and counts them."""

    _settings: Settings
    _parts: TurnParts
    _limiter: InFlight
    _metrics: ChatMetrics

    def register(self, worker: WorkflowRuntime) -> None:
        """Register every step on `worker`."""
        for step in (*STEPS, *OTHERS):
            worker.register_activity(self._activity(step), name=step.name)

    def _activity(self, step: Step) -> Callable[[WorkflowActivityContext, dict[str, Any]], Awaitable[Any]]:
        places = asyncio.Semaphore(step.max_concurrency(self._settings))

        async def run(context: WorkflowActivityContext, given: dict[str, Any]) -> Any:
            with self._limiter.one_more():
                async with places:
                    return await self._attempt(step, context.workflow_id, given)

        return run

    async def _attempt(self, step: Step, workflow_id: str, given: dict[str, Any]) -> Any:
        began, timeout_s = asyncio.get_running_loop().time(), step.timeout_s(self._settings)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._run(step, workflow_id, given)
        except Exception as error:  # noqa: BLE001 - the edge of a step: classified, logged, reported to the workflow
            fault = _classify(error, timeout_s)
            self._report(step, given, fault, error)
            raise encode_fault(fault, asyncio.get_running_loop().time() - began) from None
        seconds = time.perf_counter() - started
        self._metrics.step_attempted(step.name, "completed", seconds)
        if result != "gone" and not (isinstance(result, dict) and WAITS_UNTIL in result):
            ids = {"turn_id": given.get("turn_id"), "step": step.name, "attempt": given.get("attempt", 1)}
            log.info("step_completed", extra={**ids, "seconds": round(seconds, 3)})
        return result

    async def _run(self, step: Step, workflow_id: str, given: dict[str, Any]) -> Any:
        turn_id, number = given["turn_id"], given.get("run")
        if number is None:  # of a workflow of the release before
            facts = await self._parts.journal.find(turn_id) if "deferred" in given else None
            number = facts.run.number if facts else run_of_instance(workflow_id)[1]
        run = await self._parts.journal.run(turn_id, number)
        if run is not None:
            call = StepCall(run, given.get("attempt", 1), given, self._parts)
            attributes = {"everturn.turn_id": turn_id, "everturn.attempt": call.attempt}
            parent = tracing.inside(run.accepted.trace, run.instance_id)
            with tracing.span(CHAT_APP_ID, step.name, parent=parent, attributes=attributes):
                return await step.function(call)
        if session_id := given.get("session_id"):
            await self._parts.queue.drop(session_id, turn_id)
        if step not in _MAY_BE_GONE:
            raise unknown_turn(turn_id)
        log.error("step_without_facts", extra={"turn_id": turn_id, "step": step.name})
        return "gone"

    def _report(self, step: Step, given: dict[str, Any], fault: EverturnError, error: Exception) -> None:
        if fault.kind == NOT_ITS_TURN:
            return
        attempt = given.get("attempt", 1)
        ids = {"turn_id": given.get("turn_id"), "step": step.name, "attempt": attempt, "kind": fault.kind}
        if fault.kind == "unexpected":
            # The frames alone: the message of an unknown exception could hold what a user wrote.
            log.error("step_crashed", extra={**ids, "frames": traceback.format_tb(error.__traceback__)[-3:]})
        elif fault.kind != CANCELLED:
            log.warning("step_attempt_failed", extra={**ids, "reason": fault.message})
        outcome = "failed_terminal" if isinstance(fault, TerminalError) else "failed_transient"
        self._metrics.step_attempted(step.name, outcome, None)


def _classify(error: Exception, timeout_s: float) -> EverturnError:
    match error:
        case EverturnError():
            return error
        case TimeoutError():
            return TransientError(f"no result within {timeout_s:g} s", kind="timeout")
        case _:
            return TransientError(f"unexpected {type(error).__name__}", kind="unexpected")
