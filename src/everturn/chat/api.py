"""The chat service's routes: protocol only; what they do is in `accept` and `turns`.

`ChatApi` is how a message becomes a turn, whatever protocol it came by.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel

from everturn.chat.accept import Acceptance, TurnOptions
from everturn.chat.facts import Failed, TurnFacts
from everturn.chat.live.streams import EventStream, Streams, asked_position
from everturn.chat.metrics import InFlight
from everturn.chat.turn_lists import ListQuery, Lists
from everturn.chat.turns import Turns
from everturn.chat.waiting import TurnWaiter
from everturn.contracts.chat import (
    ApprovalDecision,
    ChatReply,
    Message,
    MessageMetadata,
    SessionList,
    Turn,
    TurnList,
    TurnStatus,
)
from everturn.contracts.fields import Id, checked_text, id_fault
from everturn.contracts.recording import Recording
from everturn.settings import Settings
from everturn.web.callers import CallerOf
from everturn.web.problems import Problem, problem_responses
from everturn.web.requests import Held, PathId, Preferences, encoded_id, header_text, preferences_of

EMPTY = "Message text cannot be empty"
# The user of protocols that need not name one, if nobody signs in.
ANONYMOUS = "anonymous"
# Of a conversation that a client sends along. More of them would hold the loop while they are read.
MAX_MESSAGES = 2_000


@dataclass(frozen=True, slots=True)
class ChatApi:
    """What the routes need; `limiter` counts messages that are being answered.

    Raises Problem for messages that are refused, and what `Acceptance` raises.
    """

    settings: Settings
    acceptance: Acceptance
    turns: Turns
    waiter: TurnWaiter
    lists: Lists
    streams: Streams
    limiter: InFlight

    async def stream(
        self, user_id: str, message: Message, key: str | None, options: TurnOptions, held: ExitStack
    ) -> TurnFacts:
        """Accept a message whose stream is then asked for; its place is kept until the request is answered."""
        self._check(message, key)
        self.limiter.refuse_more()
        self.streams.take_place(user_id, held)
        with self.limiter.one_more():
            return await self.acceptance.accept(user_id, message, key, options)

    async def send(
        self, user_id: str, message: Message, key: str | None, options: TurnOptions, wait_s: float | None
    ) -> TurnFacts:
        """Accept a message; its turn once it has ended, or without an outcome after `wait_s` (None: the setting's)."""
        self._check(message, key)
        self.limiter.refuse_more()
        limit_s = self.settings.request_wait_s
        with self.limiter.one_more():
            facts = await self.acceptance.accept(user_id, message, key, options)
            if facts.outcome is None and wait_s != 0:
                facts = await self.waiter.wait(facts.run, limit_s if wait_s is None else min(limit_s, wait_s))
        return facts

    def _check(self, message: Message, idempotency_key: str | None) -> None:
        if not message.text.strip():
            raise Problem(400, EMPTY)
        if len(message.text) > self.settings.max_text_chars:
            raise Problem(
                413,
                f"Message text has {len(message.text)} characters; at most {self.settings.max_text_chars} are taken",
            )
        if idempotency_key is not None:
            checked_id("Idempotency-Key", idempotency_key)


def checked_id(name: str, value: str) -> str:
    """`value`, if it is an id. Raises Problem (422) that names it."""
    if fault := id_fault(value):
        raise Problem(422, f"{name} {fault}")
    return value


def message_of(user_id: str, text: str, session_id: str | None) -> Message:
    """A message in our own shape, of ids that are checked. Raises Problem (422) if the text cannot be kept exactly."""
    try:
        checked_text(text)
    except ValueError as error:
        raise Problem(422, f"the text {error}") from None
    return Message(user_id=user_id, text=text, metadata=MessageMetadata(session_id=session_id))


async def list_query(
    caller: CallerOf,
    user_id: Annotated[Id | None, Query(description="Whose; not needed from a signed-in user.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    cursor: Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the list before.")] = None,
) -> ListQuery:
    """Which part of a list is wanted, as a FastAPI dependency."""
    return ListQuery(caller.acts_for(user_id, "query.user_id"), limit, cursor)


Include = Annotated[
    Literal["content"] | None, Query(description="`content`: with the text of a turn, arguments and answers.")
]


def add_chat_routes(router: APIRouter, api: ChatApi) -> None:
    """`/chat/`, `/turns/…` and `/sessions`."""
    routes = _Routes(api)
    router.add_api_route(
        "/chat/",
        routes.post_chat,
        methods=["POST"],
        response_model=ChatReply,
        tags=["chat"],
        summary="Send a message and get the reply",
        responses={
            200: streamed(_REPLY_OR_EVENTS),
            202: _accepted(),
            **problem_responses(400, 403, 409, 413, 422, 429, 502, 503),
        },
    )
    # By invocation the path comes without its slash at the end: Dapr 1.18 cleans it.
    router.add_api_route("/chat", routes.post_chat, methods=["POST"], response_model=ChatReply, include_in_schema=False)
    router.add_api_route(
        "/turns/{turn_id}/events",
        routes.get_events,
        methods=["GET"],
        response_class=Response,
        tags=["turns"],
        summary="The events of a turn, as they come",
        responses={200: streamed("The events."), **problem_responses(404, 422, 429, 503)},
    )
    _add_turn_routes(router, routes)


def _add_turn_routes(router: APIRouter, routes: "_Routes") -> None:
    turn, call = "/turns/{turn_id}", "/turns/{turn_id}/approvals/{call_id}"
    of_list, of_turn = (403, 422, 503), (404, 409, 503)
    for method, path, handler, model, summary, codes in (
        ("GET", "/turns", routes.list_turns, TurnList, "Turns of a user, newest first", of_list),
        ("GET", "/sessions", routes.list_sessions, SessionList, "Conversations of a user, newest first", of_list),
        ("POST", call, routes.decide, Turn, "Decide about a call that a turn waits for", (404, 409, 422, 503)),
        ("GET", f"{turn}/recording", routes.get_recording, Recording, "All that a replay of a turn needs", of_turn),
        ("GET", turn, routes.get_turn, Turn, "Where a turn stands", (404, 503)),
        ("POST", f"{turn}/cancel", routes.cancel, Turn, "End a turn without a reply", of_turn),
        ("POST", f"{turn}/pause", routes.pause, Turn, "Hold a turn", of_turn),
        ("POST", f"{turn}/resume", routes.resume, Turn, "Let a held turn run again", of_turn),
        ("POST", f"{turn}/rerun", routes.rerun, Turn, "Try a failed turn again", (404, 409, 429, 503)),
    ):
        router.add_api_route(
            path,
            handler,
            methods=[method],
            status_code=202 if handler == routes.rerun else 200,
            response_model=model,
            tags=[path.split("/")[1]],
            summary=summary,
            responses=problem_responses(*codes),
        )


class _Routes:
    def __init__(self, api: ChatApi) -> None:
        self._api, self._turns, self._lists, self._streams = api, api.turns, api.lists, api.streams

    async def post_chat(
        self,
        message: Message,
        caller: CallerOf,
        preferences: Annotated[Preferences, Depends(preferences_of)],
        held: Held,
        idempotency_key: Annotated[str | None, Header(description="Makes a repeated request the same turn.")] = None,
        accept: Annotated[str, Header(description="`text/event-stream` asks for the events of the turn.")] = "",
    ) -> Response:
        key = None if idempotency_key is None else header_text(idempotency_key)
        user_id = caller.acts_for(message.user_id)
        if EventStream.media_type in accept.lower():
            options = TurnOptions(streamed=True)
            return self._streams.of(await self._api.stream(user_id, message, key, options, held))
        wait_s = 0.0 if preferences.respond_async else preferences.wait_s
        facts = await self._api.send(user_id, message, key, TurnOptions(streamed=preferences.respond_async), wait_s)
        if facts.outcome is None:
            turn_id = facts.run.turn_id
            return _json(await self._turns.view(turn_id), 202, _location(turn_id))
        return _json(reply_of(facts))

    async def get_turn(
        self,
        turn_id: PathId,
        caller: CallerOf,
        include: Include = None,
    ) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.view(turn_id, with_content=include is not None))

    async def get_events(
        self,
        turn_id: PathId,
        caller: CallerOf,
        held: Held,
        last_event_id: Annotated[str, Header(description="The id of the last event that was read.")] = "",
        after: Annotated[str, Query(description="The same, for the first request.")] = "",
    ) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        facts = await self._turns.facts(turn_id)
        self._streams.take_place(facts.run.accepted.user_id, held)
        return self._streams.of(facts, asked_position(last_event_id, after))

    async def get_recording(self, turn_id: PathId, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.recording(turn_id))

    async def list_turns(
        self,
        query: Annotated[ListQuery, Depends(list_query)],
        status: TurnStatus | None = None,
        session_id: Id | None = None,
        include: Include = None,
    ) -> Response:
        return _json(await self._lists.turns(query, status, session_id, with_content=include is not None))

    async def list_sessions(self, query: Annotated[ListQuery, Depends(list_query)]) -> Response:
        return _json(await self._lists.sessions(query))

    async def decide(self, turn_id: PathId, call_id: PathId, decision: ApprovalDecision, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.decide(turn_id, call_id, decision))

    async def cancel(self, turn_id: PathId, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.cancel(turn_id))

    async def pause(self, turn_id: PathId, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.pause(turn_id))

    async def resume(self, turn_id: PathId, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.resume(turn_id))

    async def rerun(self, turn_id: PathId, caller: CallerOf) -> Response:
        await self._turns.check_owner(turn_id, caller.user_id)
        return _json(await self._turns.rerun(turn_id), 202, _location(turn_id))


def reply_of(facts: TurnFacts) -> ChatReply:
    """The reply of a turn that has ended. Raises Problem without one: 409 if it was cancelled, 502 if it failed."""
    turn_id, verdict, status = facts.run.turn_id, facts.verdict, facts.outcome and facts.outcome.status
    reply = facts.reply()
    if status is TurnStatus.COMPLETED and reply is not None:
        return reply
    extras = {"turn_id": turn_id}
    if status is TurnStatus.CANCELLED:
        raise Problem(409, f"turn {turn_id!r} was cancelled", extras=extras)
    if not isinstance(verdict, Failed):
        raise Problem(500, "The server met an unexpected error.")
    raise Problem(
        502,
        f"the step {verdict.step} of turn {turn_id!r} failed: {verdict.message}",
        extras={**extras, "step": verdict.step, "kind": verdict.kind},
    )


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Encoded once, here: FastAPI would check and encode the model a second time."""
    return Response(body.model_dump_json(exclude_none=True), status, headers, "application/json")


def _location(turn_id: str) -> dict[str, str]:
    return {"Location": f"/turns/{encoded_id(turn_id)}"}


def _accepted() -> dict[str, object]:
    return {
        "model": Turn,
        "description": "The turn goes on: `Location` names where to look for it.",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "`/turns/{turn_id}`"}},
    }


_REPLY_OR_EVENTS = "The reply, or its events in the words of AG-UI 1.0 if the client accepts `text/event-stream`."


def streamed(description: str) -> dict[str, object]:
    """For the API document: an answer that is a stream of events (`itemSchema` is of OpenAPI 3.2)."""
    event = 'id: 0.0\ndata: {"type":"RUN_STARTED","threadId":"monday","runId":"0f0c8d6e"}\n\n'
    text = {"type": "string"}
    item = {"type": "object", "required": ["id", "data"], "properties": {"id": text, "data": text}}
    return {"description": description, "content": {"text/event-stream": {"itemSchema": item, "example": event}}}
