"""`POST /agui`: a run of AG-UI 1.0 (https://docs.ag-ui.com). Its thread is a session, its id the key that makes a
repeated request the same turn. The conversation is the one that the session has; of the messages the last one counts.

A turn that waits for a person ends the run with interrupts; a run with `resume` decides them and goes on with its turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ag_ui.core import (
    BaseEvent,
    Context,
    Message,
    MessagesSnapshotEvent,
    ResumeEntry,
    RunAgentInput,
    RunFinishedEvent,
    RunStartedEvent,
    TextPart,
    Tool,
    UserMessage,
)
from fastapi import APIRouter, Response
from pydantic import Field, ValidationError

from everturn.chat.accept import TurnOptions
from everturn.chat.api import ANONYMOUS, MAX_MESSAGES, ChatApi, checked_id, message_of, streamed
from everturn.chat.facts import TurnFacts
from everturn.chat.live.events import LiveEvent, Position, pause_position
from everturn.contracts.chat import ApprovalDecision
from everturn.web.callers import Caller, CallerOf
from everturn.web.problems import Problem, problem_responses
from everturn.web.requests import Held


def add_agui_route(router: APIRouter, api: ChatApi) -> None:
    router.add_api_route(
        "/agui",
        _Agui(api).run,
        methods=["POST"],
        status_code=200,
        response_class=Response,
        tags=["turns"],
        summary="Send a message as a run of AG-UI and get its events",
        responses={
            200: streamed("The events of the run."),
            **problem_responses(400, 403, 404, 409, 413, 422, 429, 503),
        },
    )


class AguiRun(RunAgentInput):
    """A run as it is asked for. The session has the conversation: of its messages the last counts."""

    messages: list[Message] = Field(max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_MESSAGES)
    context: list[Context] | None = Field(default=None, max_length=MAX_MESSAGES)
    resume: list[ResumeEntry] | None = Field(default=None, max_length=MAX_MESSAGES)


@dataclass(eq=False, slots=True)
class _Agui:
    _api: ChatApi

    async def run(self, asked: AguiRun, caller: CallerOf, held: Held) -> Response:
        session_id, run_id = checked_id("threadId", asked.thread_id), checked_id("runId", asked.run_id)
        user_id = _user_of(asked, caller)
        if asked.resume:
            self._api.streams.take_place(user_id, held)
            facts, position = await self._decide(asked.resume, session_id, caller.user_id or user_id)
        else:
            message = message_of(user_id, _text_of(asked.messages), session_id)
            options = TurnOptions(streamed=True, run_id=run_id)
            facts = await self._api.stream(user_id, message, run_id, options, held)
            position = ()
        return self._api.streams.of(facts, position, lambda event: _of_run(event, asked), one_run=True)

    async def _decide(self, resume: Sequence[ResumeEntry], session_id: str, user_id: str) -> tuple[TurnFacts, Position]:
        """The turn that waited for these decisions, and where it stopped."""
        turns, decided = self._api.turns, [_decision_of(entry) for entry in resume]
        (turn_id, *others) = {turn_id for turn_id, _, _ in decided}
        if others:
            raise Problem(422, "resume: all of the interrupts must be of one run")
        await turns.check_owner(turn_id, user_id)
        facts = await turns.facts(turn_id)
        number = await turns.asked_at(facts.run, decided[0][1])
        if number is None or facts.run.accepted.session_id != session_id:
            raise Problem(404, "resume: this thread has no such interrupt")
        for _, call_id, decision in decided:
            await turns.decide(turn_id, call_id, decision)
        return facts, (facts.run.number, *pause_position(number))


def _user_of(asked: RunAgentInput, caller: Caller) -> str:
    """The caller; if nobody signs in, the user whom the client names in `forwardedProps`."""
    props = asked.forwarded_props
    named = props.get("user_id") if isinstance(props, dict) else None
    if named is None:
        return caller.user_id or ANONYMOUS
    return caller.acts_for(checked_id("forwardedProps.user_id", str(named)))


def _text_of(messages: list[Message]) -> str:
    last = messages[-1] if messages else None
    if last is None:
        return ""
    if not isinstance(last, UserMessage):
        raise Problem(422, "messages: the last one must be the user's")
    if isinstance(last.content, str):
        return last.content
    if not all(isinstance(part, TextPart) for part in last.content):
        raise Problem(422, "messages: only text is taken")
    return "".join(part.text for part in last.content if isinstance(part, TextPart))


def _decision_of(entry: ResumeEntry) -> tuple[str, str, ApprovalDecision]:
    """Turn, call and decision of an answer to an interrupt; one that is given up is a rejection."""
    turn_id, _, call_id = entry.interrupt_id.rpartition(":")
    payload = entry.payload if isinstance(entry.payload, dict) else {}
    approved = False if entry.status == "cancelled" else payload.get("approved")
    if not turn_id or not isinstance(approved, bool):
        raise Problem(422, 'resume: each entry needs the id of an interrupt and a payload such as {"approved": true}')
    try:
        decision = ApprovalDecision(decision="approve" if approved else "reject", reason=payload.get("reason"))
    except ValidationError:
        raise Problem(422, "resume: the reason must be a text") from None
    return turn_id, call_id, decision


def _of_run(event: LiveEvent, asked: RunAgentInput) -> bytes:
    """The event as this client's. It keeps the messages of a snapshot alone, so it gets all of its own in place of the
    turn's; and a run that goes on with a turn has the id that the client gave it."""
    match event.body:
        case MessagesSnapshotEvent(messages=messages):
            body: BaseEvent = event.body.model_copy(update={"messages": [*asked.messages, *messages[1:]]})
        case RunStartedEvent() | RunFinishedEvent():
            body = event.body.model_copy(update={"run_id": asked.run_id})
        case _:
            return event.encoded
    return LiveEvent(event.position, body).encoded
