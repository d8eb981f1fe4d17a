"""How a workflow takes a step: attempts with backoff and Retry-After, until it is cancelled.

The SDK's RetryPolicy cannot wait for Retry-After, so the attempts are a loop of the workflow, with its durable timers.
A time limit is inside the activity: a durable timer would count the time that the system was down. A turn carries its
policies in its workflow's input: with other settings after a restart it would contradict its history.

A failed attempt reaches the workflow as the message of the activity's exception, in JSON: Dapr carries of an exception
only its type's name and its text (TaskFailureDetails).
"""

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, TaskFailedError, when_any
from pydantic import BaseModel, ConfigDict, ValidationError

from everturn.chat.assistant.agent import ModelCallFailed
from everturn.contracts.chat import Failure
from everturn.contracts.fields import MAX_RETRY_AFTER_S, to_wire
from everturn.errors import EverturnError, TerminalError, TransientError

BACKOFF_FACTOR = 2.0


class Policy(BaseModel):
    """Seconds between attempts: `first_delay_s`, doubled each time, at most `max_delay_s`.

    Limited by `attempts` in all, and by `give_up_s`: seconds of attempts and planned delays since the step last got on.
    The time that the system was down is in neither.
    """

    model_config = ConfigDict(frozen=True)

    attempts: int | None
    first_delay_s: float
    max_delay_s: float
    give_up_s: float | None = None

    def delay_after(self, attempt: int, retry_after_s: float | None, spent_s: float = 0.0) -> timedelta | None:
        """How long to wait after failed attempt number `attempt` (from 1); None if that was the last.

        Retry-After is honoured beyond `max_delay_s`, and counts as a refusal beyond MAX_RETRY_AFTER_S.
        """
        if (self.attempts is not None and attempt >= self.attempts) or (retry_after_s or 0) > MAX_RETRY_AFTER_S:
            return None
        backoff_s = min(self.max_delay_s, self.first_delay_s * BACKOFF_FACTOR ** min(attempt - 1, 64))
        delay_s = max(backoff_s, retry_after_s or 0)
        if self.give_up_s is not None and spent_s + delay_s > self.give_up_s:
            return None
        return timedelta(seconds=delay_s)


# For steps without settings of their own.
DEFAULT_POLICY = Policy(attempts=5, first_delay_s=0.2, max_delay_s=30)
# For what must happen before a turn is over and needs the state store or the sidecar alone: 8 hours of tries.
PERSISTENT = Policy(attempts=1_000, first_delay_s=0.2, max_delay_s=30)


class Policies(BaseModel):
    """The policies of the named steps."""

    model_config = ConfigDict(frozen=True)

    steps: dict[str, Policy]

    def of(self, step: str) -> Policy:
        return self.steps.get(step, DEFAULT_POLICY)


# The turn ends without a reply; the turn is not the head of its session yet.
CANCELLED = "cancelled"
NOT_ITS_TURN = "not_its_turn"


class StepFault(BaseModel):
    """Why an attempt of a step failed. `spent_s`: seconds since it last got on; `got_on`: whether it did at all."""

    model_config = ConfigDict(frozen=True)

    kind: str
    message: str
    transient: bool
    retry_after_s: float | None = None
    spent_s: float = 0.0
    got_on: bool = False

    def as_failure(self) -> Failure:
        return Failure(kind=self.kind, message=self.message)


class StepAttemptFailed(Exception):
    """Raised by an activity at its edge; the text is a StepFault in JSON."""


class StepFailed(Exception):
    """A step has failed for good, after `attempts` attempts."""

    def __init__(self, step: str, attempts: int, fault: StepFault) -> None:
        super().__init__(f"{step}: {fault.kind}")
        self.step = step
        self.attempts = attempts
        self.fault = fault


class TurnCancelled(Exception):
    """Somebody asked to cancel the turn."""


class NotItsTurn(Exception):
    """Another turn of the session runs."""


def encode_fault(error: EverturnError, spent_s: float = 0.0) -> StepAttemptFailed:
    """The exception that tells the workflow of `error`, `spent_s` seconds after the attempt began."""
    got_on = isinstance(error, ModelCallFailed) and error.got_on
    fault = StepFault(
        kind=error.kind,
        message=error.message,
        transient=not isinstance(error, TerminalError),
        retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
        spent_s=round(error.spent_s if isinstance(error, ModelCallFailed) and got_on else spent_s, 3),
        got_on=got_on,
    )
    return StepAttemptFailed(fault.model_dump_json(exclude_defaults=True))


def decode_fault(error_type: str, text: str) -> StepFault:
    """The fault behind an activity's failure.

    Anything but ours (an activity that is not registered on a worker of another version, a bug) may pass, so it is
    transient; its text could hold anything, so only its type is passed on.
    """
    try:
        return StepFault.model_validate_json(text)
    except ValidationError:
        return StepFault(kind="unexpected", message=f"the step ended unexpectedly ({error_type})", transient=True)


def fault_of(error: Exception) -> StepFault:
    """The fault behind the exception of a failed task."""
    if isinstance(error, TaskFailedError):
        return decode_fault(error.details.error_type, error.details.message)
    return decode_fault(type(error).__name__, "")


CANCEL_EVENT = "cancel"
YOUR_TURN_EVENT = "your_turn"
DECIDED_EVENT = "decided"
# What a step returns that a person has to decide about, with the time until which it waits.
WAITS_UNTIL = "waits_until"
# The workflow's custom status meanwhile.
WAITING_STATUS = "waiting"
# Seconds between two checks for a decision; a decision raises an event, which a crash could lose.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 60.0, 6 * 3_600.0
# Seconds between two checks of a workflow whose turn waits behind another, which raises an event when it ends.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 30.0, 600.0
# The workflow's custom status while a step waits for its next attempt; the time follows.
NEXT_ATTEMPT_STATUS = "next_attempt_at="

Steps = Generator[Any, Any, Any]


class StepRunner:
    """Runs the steps of one workflow. `call` is what every activity is given besides its own details."""

    def __init__(self, ctx: DaprWorkflowContext, policies: Policies, call: dict[str, Any]) -> None:
        self._ctx = ctx
        self._policies = policies
        self._call = call
        self._cancel = ctx.wait_for_external_event(CANCEL_EVENT)
        self._my_turn: Any = None
        self._decided: Any = None

    def step(self, name: str, *, cancellable: bool = True, **details: Any) -> Steps:
        """Run the activity `name` by its policy; its result.

        Raises StepFailed if it fails for good, TurnCancelled if the turn is cancelled meanwhile, NotItsTurn if another
        one runs.
        """
        policy, spent_s = self._policies.of(name), 0.0
        for attempt in count(1):
            task = self._ctx.call_activity(name, input={**self._call, "attempt": attempt, **details})
            yield from self._wait(task, cancellable=cancellable)
            if not task.is_failed:
                return task.get_result()
            fault = fault_of(task.get_exception())
            if fault.kind == CANCELLED:
                raise TurnCancelled
            if fault.kind == NOT_ITS_TURN:
                raise NotItsTurn
            spent_s = fault.spent_s if fault.got_on else spent_s + fault.spent_s
            delay = policy.delay_after(attempt, fault.retry_after_s, spent_s) if fault.transient else None
            if delay is None:
                raise StepFailed(name, attempt, fault)
            spent_s += delay.total_seconds()
            yield from self._pause(delay, cancellable=cancellable)
        return None

    def decided_step(self, name: str) -> Steps:
        """As `step`, again after each decision that it waits for. No activity runs meanwhile; later turns may pass."""
        for look in count():
            try:
                result = yield from self.step(name)
            except NotItsTurn:
                yield from self.wait_for_turn(look)
                continue
            if not (isinstance(result, dict) and WAITS_UNTIL in result):
                return result
            look_s = min(_LONGEST_LOOK_S, _FIRST_LOOK_S * 2.0 ** min(look, 16))
            now = self._ctx.current_utc_datetime.replace(tzinfo=UTC)
            left_s = (datetime.fromisoformat(result[WAITS_UNTIL]) - now).total_seconds()
            if self._decided is None or self._decided.is_complete:
                self._decided = self._ctx.wait_for_external_event(DECIDED_EVENT)
            timer = self._ctx.create_timer(timedelta(seconds=max(0.0, min(left_s, look_s))))
            self._ctx.set_custom_status(WAITING_STATUS)
            yield when_any([self._decided, timer, self._cancel])
            self._ctx.set_custom_status("")
            if self._cancel.is_complete:
                raise TurnCancelled
        return None

    def run_until_done(self, name: str, **details: Any) -> Steps:
        """Run the activity `name` until it succeeds; nothing can cancel it. Raises StepFailed after hours of tries."""
        for attempt in count(1):
            task = self._ctx.call_activity(name, input={**self._call, "attempt": attempt, **details})
            yield from self._wait(task, cancellable=False)
            if not task.is_failed:
                return task.get_result()
            delay = PERSISTENT.delay_after(attempt, None)
            if delay is None:
                raise StepFailed(name, attempt, fault_of(task.get_exception()))
            yield from self._pause(delay, cancellable=False)
        return None

    def wait_for_turn(self, look: int) -> Steps:
        """Wait for the event `your_turn`, or until it is time for check number `look`. Raises TurnCancelled."""
        limit = timedelta(seconds=min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(look, 16)))
        if self._my_turn is None or self._my_turn.is_complete:
            self._my_turn = self._ctx.wait_for_external_event(YOUR_TURN_EVENT)
        yield when_any([self._my_turn, self._ctx.create_timer(limit), self._cancel])
        if self._cancel.is_complete:
            raise TurnCancelled

    def _pause(self, delay: timedelta, *, cancellable: bool) -> Steps:
        self._ctx.set_custom_status(NEXT_ATTEMPT_STATUS + to_wire(self._ctx.current_utc_datetime + delay))
        yield from self._wait(self._ctx.create_timer(delay), cancellable=cancellable)
        self._ctx.set_custom_status("")

    def _wait(self, task: Any, *, cancellable: bool) -> Steps:
        yield when_any([task, self._cancel] if cancellable else [task])
        if not task.is_complete:
            raise TurnCancelled
