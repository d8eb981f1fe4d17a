"""The steps of a turn: what each does, their order, and the edge of each attempt: its time limit, log line and error.

Each says how it is idempotent: all of them may run again after a crash. To add one: a function, and a line in `STEPS`
(docs/how-to/add-a-step.md).
"""

import asyncio
import logging
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime

from everturn import tracing
from everturn.chat.assistant.agent import RunStopped, WarmedAssistant
from everturn.chat.calls import Call, CallLog, decisions_of, open_call_log, pauses_of
from everturn.chat.context import ContextSource, memory_of, with_recent
from everturn.chat.ending import Ending
from everturn.chat.facts import Cancelled, Failed, Merged, Reply, TurnRun, Verdict, run_of_instance
from everturn.chat.journal import Journal, unknown_turn
from everturn.chat.metrics import ChatMetrics, InFlight
from everturn.chat.queue import SessionQueue, Standing
from everturn.chat.session import Session
from everturn.chat.streamed_words import WordWriters
from everturn.chat.waiting import Cancellations
from everturn.chat.workflow.chat_turn import END_TURN, FETCH_CONTEXT, HANDLE_ERROR, SAVE_CONVERSATION
from everturn.chat.workflow.step_runner import (
    CANCELLED,
    DEFAULT_POLICY,
    NOT_ITS_TURN,
    WAITS_UNTIL,
    Policies,
    Policy,
    encode_fault,
)
from everturn.contracts.events import CHAT_APP_ID
from everturn.contracts.fields import to_wire, utc_now
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 30.0
# More of them at once would only slow each other down, past their time limits.
DEFAULT_MAX_CONCURRENCY = 64
# How many replies are kept in memory that the store would not take.
_UNSAVED_REPLIES = 1_000


@dataclass(frozen=True, slots=True)
class TurnParts:
    """What the steps of a turn may use."""

    settings: Settings
    journal: Journal
    queue: SessionQueue
    contexts: ContextSource
    assistant: WarmedAssistant
    ending: Ending
    cancellations: Cancellations
    word_writers: WordWriters
    metrics: ChatMetrics
    unsaved: "OrderedDict[str, Reply]" = field(default_factory=OrderedDict)

    @property
    def decide_within(self) -> timedelta:
        """How long a person has for a decision."""
        return timedelta(seconds=self.settings.approval_timeout_s or self.settings.keep_turns_days * 86_400)

    def paid(self, run: TurnRun, call: Call) -> None:
        """Count the tokens of a call of `run`, and wake the streams that follow the run."""
        self.metrics.tokens_used(call.name, call.tokens)
        if run.accepted.streamed:
            self.word_writers.hints.notify(run)


@dataclass(frozen=True, slots=True)
class StepCall:
    """One attempt of a step: of which run of a turn, with what, and what it may use."""

    run: TurnRun
    attempt: int
    details: dict[str, Any]
    parts: TurnParts

    @property
    def turn_id(self) -> str:
        return self.run.turn_id

    @property
    def is_of_v1(self) -> bool:
        """Whether a workflow of the release before makes this call: it ends the turn by `end_turn` alone."""
        return "session_id" not in self.details and "deferred" not in self.details


StepFunction = Callable[[StepCall], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """An activity of a turn: `timeout_s` is one attempt's; at most `max_concurrency` attempts run in a process.

    Others wait, which does not count as their time.
    """

    name: str
    function: StepFunction
    policy: Callable[[Settings], Policy]
    timeout_s: Callable[[Settings], float]
    max_concurrency: Callable[[Settings], int]


def step(
    name: str,
    *,
    policy: Callable[[Settings], Policy] = lambda _: DEFAULT_POLICY,
    timeout_s: Callable[[Settings], float] = lambda _: DEFAULT_TIMEOUT_S,
    max_concurrency: Callable[[Settings], int] = lambda _: DEFAULT_MAX_CONCURRENCY,
) -> Callable[[StepFunction], Step]:
    """Make a coroutine function the activity `name`.

    It runs at least once for each attempt, perhaps again after a crash: say how its effect is idempotent. It raises
    TransientError to be tried again and TerminalError to fail for good; what it returns must be small JSON.
    """
    return lambda function: Step(name, function, policy, timeout_s, max_concurrency)


def _fetch_policy(settings: Settings) -> Policy:
    return Policy(
        attempts=settings.fetch_attempts,
        first_delay_s=settings.fetch_first_delay_s,
        max_delay_s=settings.fetch_max_delay_s,
    )


# The parts have the setting's limit each; the step itself only has to reach the state store besides.
@step(FETCH_CONTEXT, policy=_fetch_policy, timeout_s=lambda settings: settings.fetch_timeout_s + 10)
async def fetch_context(call: StepCall) -> str:
    """Make sure that the turn is the head of its session; then write its context: the first one written is used.

    What is out of reach after the last attempt is written as missing.
    """
    if not call.is_of_v1:
        starts_first = bool(call.details.get("starts_first"))
        standing = await call.parts.queue.take_turn(call.run, starts_first=starts_first)
        if standing is Standing.GONE:
            return "gone"
        if standing is Standing.WAITS:
            raise _waits()
    context, error = await call.parts.contexts.gather(call.run, await _session(call))
    if isinstance(error, TransientError) and call.attempt < call.parts.contexts.attempts:
        raise error
    await call.parts.journal.write(call.run.key("context"), context, durable=False)
    if error is not None:
        raise error
    return "fetched"


def _generate_policy(settings: Settings) -> Policy:
    return Policy(
        attempts=settings.generate_attempts,
        first_delay_s=settings.generate_first_delay_s,
        max_delay_s=settings.generate_max_delay_s,
        give_up_s=settings.generate_give_up_s,
    )


# Each model call has the setting's limit; between them tools may take an hour in all.
@step(
    "generate_response",
    policy=_generate_policy,
    timeout_s=lambda settings: settings.max_model_calls_per_turn * settings.generate_timeout_s + 3_600,
    max_concurrency=lambda settings: settings.max_model_calls,
)
async def generate_response(call: StepCall) -> dict[str, str] | None:
    """Ask the model and make its reply the verdict; if there is a verdict already, the model is not asked.

    Calls of models and tools that an earlier attempt made are in the journal, and not made again. If a person has to
    decide about calls first, the result is until when it is waited for (`WAITS_UNTIL`); if others may pass meanwhile,
    it needs its session again before it goes on. A reply that the store would
    not take is kept in the process, and the next attempt writes it.
    """
    parts, key = call.parts, call.run.instance_id
    paid = partial(parts.paid, call.run)
    verdict, calls = await open_call_log(parts.journal, call.run, parts.assistant.model_name, paid, parts.decide_within)
    if verdict is None:
        with parts.cancellations.watching(call.run, calls.cancel):
            reply = await _replied(call, calls)
        if reply is None:
            if parts.settings.waiting_turns == "pass":
                await parts.queue.step_aside(call.run)
            parts.ending.stopped(call.run, [taken.message.turn_id for taken in calls.taken])
            return {WAITS_UNTIL: pauses_of(calls.calls)[-1].expires_at}
        parts.unsaved[key] = reply
        if len(parts.unsaved) > _UNSAVED_REPLIES:
            parts.unsaved.popitem(last=False)
        verdict = await parts.journal.write_verdict(call.run, reply)
        if verdict is reply and calls.last:
            paid(calls.last)
    parts.unsaved.pop(key, None)
    if not isinstance(verdict, Reply):
        raise TerminalError("the turn ends without a reply", kind=CANCELLED)
    return None


async def _replied(call: StepCall, calls: CallLog) -> Reply | None:
    """The reply that is not written yet; its words are closed if it is streamed. None if a person has to decide."""
    unsaved, key = call.parts.unsaved, call.run.instance_id
    kept = unsaved.get(key)
    if not call.run.accepted.streamed:
        return kept or await _ask(call, calls)
    if kept and kept.words >= 0:
        return kept
    async with call.parts.word_writers.of(call.run).writing() as calls.writer:
        kept = kept or await _ask(call, calls)
    if kept is None:
        return None
    unsaved[key] = kept
    return await calls.writer.close(kept)


async def _session(call: StepCall) -> Session:
    return call.parts.queue.last_seen(call.run) or await call.parts.queue.session_of(call.run)


async def _ask(call: StepCall, calls: CallLog) -> Reply | None:
    parts, accepted, pause = call.parts, call.run.accepted, calls.pause
    session = await _session(call)
    if session.is_interrupted(call.run):
        raise TerminalError("a later message interrupts the turn", kind=CANCELLED)
    decisions = await decisions_of(parts.journal, call.run, pause) if pause else {}
    if pause and len(decisions) < len(pause.asked):
        return None
    if pause and await parts.queue.come_back(call.run) is not Standing.HEAD:
        raise _waits()
    context = await parts.journal.context(call.run)
    if context is None:  # the turn was open for longer than its facts are kept
        context, _ = await parts.contexts.gather(call.run, session)
    elif context.recent is None:
        context = with_recent(context, session)
    window = await parts.contexts.history(context, accepted.given)
    memory = memory_of(context, accepted.user_id)
    calls.take = partial(_taken, call)
    try:
        text = await parts.assistant.reply(memory, window, accepted.text, context.missing, calls, decisions)
    except RunStopped:
        return None
    return Reply(
        text=text,
        model=calls.model_name,
        at=to_wire(utc_now()),
        degraded=context.missing,
        stored_up_to=context.stored_up_to,
        usage=calls.usage(),
        last_call=msgspec.to_builtins(calls.last) if calls.last else {},
        place=(len(calls.calls), 0),
        merged=await _renumbered(call, calls.merged) if pause else calls.merged,
    )


async def _renumbered(call: StepCall, merged: Sequence[Merged]) -> list[Merged]:
    """The messages under the sequences that they have now: a turn that others have passed came back under new ones."""
    places = await call.parts.queue.taken_by(call.run) if merged else ()
    sequences = {place.turn_id: place.sequence for place in places}
    return [msgspec.structs.replace(one, sequence=sequences.get(one.turn_id, one.sequence)) for one in merged]


async def _taken(call: StepCall, is_first: bool) -> list[Merged]:
    """The messages that the run has taken up by now, in their order."""
    return [
        Merged(place.turn_id, place.sequence, other.accepted.text, other.accepted.at)
        for place in await call.parts.queue.take_up(call.run, is_first=is_first)
        if (other := await call.parts.journal.run(place.turn_id, place.run or 0))
    ]


def _waits() -> TransientError:
    return TransientError("another turn of the session runs", kind=NOT_ITS_TURN)


def save_policy(settings: Settings) -> Policy:
    """Of the deferred delivery: the step itself is repeated until it is done."""
    return Policy(
        attempts=settings.save_attempts,
        first_delay_s=settings.save_first_delay_s,
        max_delay_s=settings.save_max_delay_s,
    )


@step(SAVE_CONVERSATION, policy=save_policy, timeout_s=lambda settings: settings.save_timeout_s)
async def save_conversation(call: StepCall) -> str:
    """Publish ConversationUpdated and end the turn. All of it may be done again (`Ending`).

    `deferred`: a workflow that delivers an event later, which is all that is to be done.
    """
    if call.details.get("deferred"):
        await call.parts.ending.deliver(call.run, call.details.get("sequence"))
        return "delivered"
    verdict = await call.parts.journal.verdict(call.run)
    if verdict is None:
        lost = {"step": SAVE_CONVERSATION, "attempts": call.attempt, "kind": "reply_lost"}
        return await _finish(call, _failed({**lost, "message": "the reply is not kept any more"}))
    await call.parts.ending.finish(call.run, verdict, attempt=call.attempt)
    return str(verdict.__struct_config__.tag)


@step(HANDLE_ERROR)
async def handle_error(call: StepCall) -> str:
    """Make the failure the verdict, send it to the dead letters and end the turn; not if the reply was first."""
    return await _finish(call, _failed(call.details["failure"]), unless_reply=True)


@step(END_TURN)
async def end_turn(call: StepCall) -> str:
    """Make the cancellation the verdict and end the turn; not if the reply was first. Version 1 ends all turns here."""
    status, failure = call.details.get("status"), call.details.get("failure")
    if status == "completed":
        return str(await save_conversation.function(call))
    proposed = _failed(failure) if failure else Cancelled(at=to_wire(utc_now()))
    return await _finish(call, proposed, unless_reply=not call.is_of_v1)


@step("defer_event")
async def defer_event(_: StepCall) -> None:
    """Nothing: version 1 goes on to `end_turn`, which defers the event as well."""


async def _finish(call: StepCall, proposed: Verdict, *, unless_reply: bool = False) -> str:
    """End the run by the verdict that counts; its name."""
    verdict = await call.parts.journal.write_verdict(call.run, proposed)
    if not (unless_reply and isinstance(verdict, Reply)):
        await call.parts.ending.finish(call.run, verdict, attempt=call.attempt)
    return str(verdict.__struct_config__.tag)


def _failed(failure: dict[str, Any]) -> Failed:
    fields = {name: failure[name] for name in ("step", "attempts", "kind", "message")}
    return Failed(**fields, at=to_wire(utc_now()))


# The steps of a turn, in their order.
STEPS = (
    fetch_context,
    generate_response,
    save_conversation,
)
STEP_NAMES = tuple(step.name for step in STEPS)
# What else a workflow may call: how a turn ends that does not complete, and what version 1 calls.
OTHERS = (handle_error, end_turn, defer_event)
# Of a turn without facts there is nothing left to do for these.
_MAY_BE_GONE = (*OTHERS, fetch_context, save_conversation)


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
