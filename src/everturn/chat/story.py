"""How a turn's workflow takes a step: attempts with backoff and Retry-After, and an ear for cancellation.

The SDK's RetryPolicy cannot wait for Retry-After, so the attempts are a loop of the workflow, with its durable timers.
A time limit is inside the activity: a durable timer would count the time that the system was down.
"""

from collections.abc import Generator
from itertools import count
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, when_any
from pydantic import BaseModel, ConfigDict

from everturn.chat.faults import CANCELLED, StepFault, fault_of
from everturn.chat.policies import PERSISTENT, Policies

CANCEL_EVENT = "cancel"

Step = Generator[Any, Any, Any]


class TurnInput(BaseModel):
    """What a turn's workflow is started with. `from_step`: where a rerun begins; None is the first step."""

    model_config = ConfigDict(frozen=True)

    turn_id: str
    policies: Policies
    from_step: str | None = None


class StepFailed(Exception):
    """A step has failed for good, after `attempts` attempts."""

    def __init__(self, step: str, attempts: int, fault: StepFault) -> None:
        super().__init__(f"{step}: {fault.kind}")
        self.step = step
        self.attempts = attempts
        self.fault = fault


class TurnCancelled(Exception):
    """Somebody asked to cancel the turn."""


class Story:
    """The steps of one turn, inside its workflow."""

    def __init__(self, ctx: DaprWorkflowContext, turn: TurnInput) -> None:
        self._ctx = ctx
        self._turn = turn
        self._skipping = turn.from_step is not None
        self._cancel = ctx.wait_for_external_event(CANCEL_EVENT)

    def step(self, name: str, *, cancellable: bool = True, **details: Any) -> Step:
        """Run the activity `name` by its policy; its result.

        Raises StepFailed where it fails for good, TurnCancelled where the turn is cancelled meanwhile.
        """
        if self._skips(name):
            return None
        policy = self._turn.policies.of(name)
        for attempt in count(1):
            task = self._ctx.call_activity(name, input=self._call(attempt=attempt, **details))
            yield from self._wait(task, cancellable=cancellable)
            if not task.is_failed:
                return task.get_result()
            fault = fault_of(task.get_exception())
            if fault.kind == CANCELLED:
                raise TurnCancelled
            delay = policy.delay_after(attempt, fault.retry_after_s) if fault.transient else None
            if delay is None:
                raise StepFailed(name, attempt, fault)
            yield from self._wait(self._ctx.create_timer(delay), cancellable=cancellable)
        return None

    def surely(self, name: str, **details: Any) -> Step:
        """Run the activity `name` until it succeeds; nothing can cancel it."""
        return (yield self._ctx.call_activity(name, input=self._call(**details), retry_policy=PERSISTENT))

    def _call(self, **details: Any) -> dict[str, Any]:
        return {"turn_id": self._turn.turn_id, **details}

    def _skips(self, name: str) -> bool:
        if name == self._turn.from_step:
            self._skipping = False
        return self._skipping

    def _wait(self, task: Any, *, cancellable: bool) -> Step:
        awaited = [task, self._cancel] if cancellable else [task]
        yield when_any(awaited)
        if not task.is_complete:
            raise TurnCancelled
        return None
