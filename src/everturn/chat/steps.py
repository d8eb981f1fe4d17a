"""How an activity of a turn is declared and run: `@step("name")` above a coroutine function is all it takes.

The edge of every step is here: its time limit, its log line and metrics, and the sorting of its errors.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime

from everturn.chat.faults import CANCELLED, StepAttemptFailed, encode_fault
from everturn.chat.records import TurnRecord, Versioned
from everturn.chat.services import TurnServices
from everturn.contracts.chat import TurnStatus
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 30.0
# More of them at once would only slow each other down, past their time limits.
DEFAULT_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class StepCall:
    """One attempt of a step: for which turn, in which workflow instance, with what, and what it may use."""

    turn_id: str
    instance_id: str
    attempt: int
    details: dict[str, Any]
    services: TurnServices

    async def record(self) -> TurnRecord:
        """The turn's record. Raises TerminalError (kind `cancelled`) where the turn wants no reply any more."""
        return (await self.versioned_record()).record

    async def versioned_record(self) -> Versioned:
        """As `record`, with the ETag that a change of it needs."""
        found = await self.services.records.get(self.turn_id)
        refuse_cancelled(found.record)
        return found


def refuse_cancelled(record: TurnRecord) -> None:
    """Raises TerminalError where the turn was cancelled, or has ended without a reply while the step still ran."""
    outcome = record.outcome
    if record.cancel_requested or (outcome is not None and outcome.status is not TurnStatus.COMPLETED):
        raise TerminalError("the turn was cancelled", kind=CANCELLED)


StepFunction = Callable[[StepCall], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Declared:
    function: StepFunction
    timeout_s: Callable[[Settings], float]
    at_once: Callable[[Settings], int]


_STEPS: dict[str, _Declared] = {}


def step(
    name: str,
    *,
    timeout_s: Callable[[Settings], float] = lambda _: DEFAULT_TIMEOUT_S,
    at_once: Callable[[Settings], int] = lambda _: DEFAULT_AT_ONCE,
) -> Callable[[StepFunction], StepFunction]:
    """Declare a coroutine function as the activity `name`, with seconds that one attempt may take.

    At most `at_once` attempts run in a process; others wait, which does not count as their time.
    It runs at least once for each attempt, perhaps again after a crash: say how its effect is idempotent. It raises
    TransientError to be tried again and TerminalError to fail for good; what it returns must be small JSON.
    """

    def declare(function: StepFunction) -> StepFunction:
        _STEPS[name] = _Declared(function, timeout_s, at_once)
        return function

    return declare


def register_steps(worker: WorkflowRuntime, services: TurnServices) -> None:
    """Register every declared step on `worker`."""
    for name, declared in _STEPS.items():
        worker.register_activity(_activity(name, declared, services), name=name)


def _activity(
    name: str, declared: _Declared, services: TurnServices
) -> Callable[[WorkflowActivityContext, dict[str, Any]], Awaitable[Any]]:
    timeout_s = declared.timeout_s(services.settings)
    places = asyncio.Semaphore(declared.at_once(services.settings))

    async def run(context: WorkflowActivityContext, given: dict[str, Any]) -> Any:
        details = dict(given)
        turn_id, attempt_number = details.pop("turn_id"), details.pop("attempt", 1)
        call = StepCall(turn_id, context.workflow_id, attempt_number, details, services)
        with services.attempts.attempt():
            async with places:
                return await attempt(call)

    async def attempt(call: StepCall) -> Any:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                result = await declared.function(call)
        except Exception as error:  # noqa: BLE001 - the edge of a step: sorted, logged, told to the workflow
            raise _told(name, call, error, timeout_s) from None
        services.metrics.step_attempted(name, "completed", time.perf_counter() - started)
        return result

    return run


def _told(name: str, call: StepCall, error: Exception, timeout_s: float) -> StepAttemptFailed:
    fault = _sorted(error, timeout_s)
    ids = {"turn_id": call.turn_id, "step": name, "attempt": call.attempt, "kind": fault.kind}
    if fault.kind == "unexpected":
        # The frames alone: the message of an unknown exception could hold what a user wrote.
        log.error("step_crashed", extra={**ids, "frames": traceback.format_tb(error.__traceback__)[-3:]})
    elif fault.kind != CANCELLED:
        log.warning("step_attempt_failed", extra={**ids, "reason": fault.message})
    outcome = "failed_transient" if isinstance(fault, TransientError) else "failed_terminal"
    call.services.metrics.step_attempted(name, outcome, None)
    return encode_fault(fault)


def _sorted(error: Exception, timeout_s: float) -> EverturnError:
    match error:
        case EverturnError():
            return error
        case TimeoutError():
            return TransientError(f"no result within {timeout_s:g} s", kind="timeout")
        case _:
            return TransientError(f"unexpected {type(error).__name__}", kind="unexpected")
