"""Version `v1` of the turn, frozen: the histories of the release before are replayed by it. Nothing here may change.

It ends a turn by an activity of its own (`end_turn`), and hands an event that cannot be sent to `defer_event`.
"""

from collections.abc import Generator
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, RetryPolicy, when_any
from pydantic import BaseModel, ConfigDict

from everturn.chat.workflow.step_runner import CANCELLED, StepFailed, TurnCancelled, fault_of

_STEPS = ("fetch_context", "generate_response", "save_conversation", "handle_error")
_PERSISTENT = RetryPolicy(
    first_retry_interval=timedelta(seconds=0.2),
    max_number_of_attempts=1_000,
    backoff_coefficient=2.0,
    max_retry_interval=timedelta(seconds=30),
)


class PolicyV1(BaseModel):
    model_config = ConfigDict(frozen=True)

    attempts: int = 5
    first_delay_s: float = 0.2
    max_delay_s: float = 30


class PoliciesV1(BaseModel):
    model_config = ConfigDict(frozen=True)

    steps: dict[str, PolicyV1]


class TurnInputV1(BaseModel):
    """`from_step`: the step with which a rerun begins; None is the first."""

    model_config = ConfigDict(frozen=True)

    turn_id: str
    policies: PoliciesV1
    from_step: str | None = None


Steps = Generator[Any, Any, Any]


class _Runner:
    def __init__(self, ctx: DaprWorkflowContext, turn: TurnInputV1) -> None:
        self.ctx = ctx
        self.turn = turn
        self.first = _STEPS.index(turn.from_step) if turn.from_step in _STEPS else 0
        self.cancel = ctx.wait_for_external_event("cancel")

    def step(self, name: str, *, cancellable: bool = True, **details: Any) -> Steps:
        if _STEPS.index(name) < self.first:
            return
        policy = self.turn.policies.steps.get(name, PolicyV1())
        for attempt in count(1):
            task = self.ctx.call_activity(name, input={"turn_id": self.turn.turn_id, "attempt": attempt, **details})
            yield from self.wait(task, cancellable)
            if not task.is_failed:
                return
            fault = fault_of(task.get_exception())
            if fault.kind == CANCELLED:
                raise TurnCancelled
            if not fault.transient or attempt >= policy.attempts or (fault.retry_after_s or 0) > 600:
                raise StepFailed(name, attempt, fault)
            backoff_s = min(policy.max_delay_s, policy.first_delay_s * 2.0 ** min(attempt - 1, 64))
            delay = timedelta(seconds=max(backoff_s, fault.retry_after_s or 0))
            yield from self.wait(self.ctx.create_timer(delay), cancellable)

    def surely(self, name: str, **details: Any) -> Steps:
        given = {"turn_id": self.turn.turn_id, **details}
        yield self.ctx.call_activity(name, input=given, retry_policy=_PERSISTENT)

    def wait(self, task: Any, cancellable: bool) -> Steps:
        yield when_any([task, self.cancel] if cancellable else [task])
        if not task.is_complete:
            raise TurnCancelled


def chat_turn_v1(ctx: DaprWorkflowContext, turn: TurnInputV1) -> Generator[Any, Any, dict[str, Any]]:
    runner = _Runner(ctx, turn)
    status, failure = "completed", None
    try:
        with suppress(StepFailed):
            yield from runner.step("fetch_context")
        yield from runner.step("generate_response")
        try:
            yield from runner.step("save_conversation", cancellable=False)
        except StepFailed:
            yield from runner.surely("defer_event")
    except TurnCancelled:
        status = "cancelled"
    except StepFailed as error:
        status = "failed"
        failure = {"step": error.step, "attempts": error.attempts, **error.fault.as_failure().model_dump()}
        with suppress(StepFailed):
            yield from runner.step("handle_error", cancellable=False, failure=failure)
    yield from runner.surely("end_turn", status=status, failure=failure)
    return {"status": status}
