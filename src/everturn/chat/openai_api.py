"""OpenAI's API in front of the assistant: models, chat completions, responses, plain and streamed.

https://platform.openai.com/docs/api-reference . Clients of it repeat requests without a key and know no turns. So
whatever is not to be repeated, above all a turn that goes on, says so (`x-should-retry`).

The conversation is the session's if the request names one, else what the client has sent before its last message.
"""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from ag_ui.core import (
    MessagesSnapshotEvent,
    RunErrorEvent,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageStartEvent,
)
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from everturn.chat.accept import TurnOptions
from everturn.chat.api import ANONYMOUS, MAX_MESSAGES, ChatApi, checked_id, message_of, reply_of
from everturn.chat.facts import PastEntry, TurnFacts, TurnRun
from everturn.chat.live.events import LiveEvent
from everturn.contracts.chat import ChatReply, Usage
from everturn.errors import EverturnError
from everturn.models.endpoint import model_name
from everturn.web.callers import Caller, CallerOf
from everturn.web.problems import Problem
from everturn.web.requests import Held, encoded_id, header_text

_RESPONSE, _COMPLETION = "resp_", "chatcmpl-"
_DONE = b"data: [DONE]\n\n"
# Type and code of an error by its status.
_TYPES = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("not_found_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
# If a person has to decide: these clients cannot wait for days.
_ASKING, _DECIDE = "approval_required", "A person has to decide about a call first"
# These may work if they are sent again.
_REPEATABLE = frozenset({429, 503})
_DOCUMENTED: dict[str, Any] = {
    "description": "The reply, whole or as a stream, in OpenAI's words.",
    "content": {"application/json": {}, "text/event-stream": {}},
}


class ContentPart(BaseModel):
    type: str
    text: str | None = None


class InputMessage(BaseModel):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_MESSAGES)] | None = None

    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        if any(part.text is None for part in self.content):
            raise Problem(400, "Only text is taken as the content of a message.")
        return "".join(part.text or "" for part in self.content)


class _Asked(BaseModel):
    """What both kinds of request have. What is not listed is ignored: the assistant has its own tools and settings."""

    stream: bool = False
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None

    def user_of(self, caller: Caller) -> str:
        named = self.safety_identifier or self.user
        return caller.user_id or (checked_id("user", named) if named else ANONYMOUS)

    def session_id(self) -> str | None:
        named = (self.metadata or {}).get("session_id")
        return None if named is None else checked_id("metadata.session_id", str(named))


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatCompletionRequest(_Asked):
    messages: list[InputMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None


class ConversationRef(BaseModel):
    id: str


class ResponseRequest(_Asked):
    input: str | Annotated[list[InputMessage], Field(max_length=MAX_MESSAGES)]
    instructions: str | None = None
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = None

    def messages(self) -> list[InputMessage]:
        given = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [InputMessage(role="system", content=self.instructions), *given] if self.instructions else given


def add_openai_routes(router: APIRouter, api: ChatApi) -> None:
    """`/v1/…`, whose errors are to have the shape of `error_of_openai`."""
    routes = _Routes(api)
    send = (400, 403, 404, 409, 413, 429, 500, 502, 503, 504)
    for path, handler, summary, method, codes in (
        ("/v1/models", routes.models, "The one model that there is", "GET", (403, 500)),
        ("/v1/models/{model}", routes.model, "The same by its name", "GET", (403, 404, 500)),
        ("/v1/chat/completions", routes.complete, "A turn as a chat completion", "POST", send),
        ("/v1/responses", routes.respond, "A turn as a response", "POST", send),
    ):
        router.add_api_route(
            path,
            handler,
            methods=[method],
            tags=["openai"],
            summary=summary,
            response_class=Response,
            responses={200: _DOCUMENTED, **{code: _documented(code) for code in (401, *codes)}},
        )


class _Routes:
    def __init__(self, api: ChatApi) -> None:
        self._api = api
        name = model_name(api.settings)
        self._model = {"id": name, "object": "model", "created": 0, "owned_by": "everturn"}

    async def models(self) -> Response:
        return _json({"object": "list", "data": [self._model]})

    async def model(self, model: str) -> Response:
        if model != encoded_id(str(self._model["id"])):
            raise Problem(404, "There is no such model.", extras={"param": "model", "code": "model_not_found"})
        return _json(self._model)

    async def complete(self, request: Request, asked: ChatCompletionRequest, caller: CallerOf, held: Held) -> Response:
        facts = await self._send(request, held, caller, asked, asked.messages, asked.session_id())
        if asked.stream:
            with_usage = asked.stream_options is not None and asked.stream_options.include_usage
            return self._streamed(facts, _ChatStream(facts.run, self._model["id"], with_usage))
        return _json(_completion(facts, reply_of(facts)))

    async def respond(self, request: Request, asked: ResponseRequest, caller: CallerOf, held: Held) -> Response:
        session_id = await self._session_of(asked, asked.user_of(caller))
        facts = await self._send(request, held, caller, asked, asked.messages(), session_id)
        if asked.stream:
            stream = _ResponseStream(facts.run, self._model["id"], asked.previous_response_id)
            return self._streamed(facts, stream)
        reply = reply_of(facts)
        return _json(_response(facts.run, reply.model, asked.previous_response_id, reply))

    def _streamed(self, facts: TurnFacts, stream: "_Stream") -> Response:
        async def stop() -> bytes:
            return stream.stopped() if await self._api.turns.is_asking(facts.run) else b""

        return self._api.streams.of(facts, encode=stream, stop=stop)

    async def _session_of(self, asked: ResponseRequest, user_id: str) -> str | None:
        """The session that a request names, in one of three ways."""
        if asked.previous_response_id is not None:
            turn_id = asked.previous_response_id.removeprefix(_RESPONSE)
            try:
                await self._api.turns.check_owner(turn_id, user_id)
                return (await self._api.turns.facts(turn_id)).run.accepted.session_id
            except EverturnError as error:
                if error.kind != "not_found":
                    raise
                extras = {"code": "previous_response_not_found"}
                raise Problem(400, "There is no response previous_response_id.", extras=extras) from None
        if isinstance(asked.conversation, ConversationRef):
            return checked_id("conversation", asked.conversation.id)
        return checked_id("conversation", asked.conversation) if asked.conversation else asked.session_id()

    async def _send(
        self,
        request: Request,
        held: Held,
        caller: Caller,
        asked: _Asked,
        messages: Sequence[InputMessage],
        session_id: str | None,
    ) -> TurnFacts:
        """The turn of the last message: to be streamed, or ended.

        Raises Problem: 504 if it takes too long, 409 if a person has to decide first.
        """
        *before, last = messages or [InputMessage(role="user")]
        if last.role != "user":
            raise Problem(400, "The last message must be the user's.")
        given = () if session_id else tuple(_entries(before))
        user_id, key = asked.user_of(caller), request.headers.get("idempotency-key")
        key = None if key is None else header_text(key)
        message = message_of(user_id, last.text(), session_id)
        if asked.stream:
            return await self._api.stream(user_id, message, key, TurnOptions(streamed=True, given=given), held)
        facts = await self._api.send(user_id, message, key, TurnOptions(given=given), None)
        if facts.outcome is None:
            raise _goes_on(facts.run, is_asking=await self._api.turns.is_asking(facts.run))
        return facts


def _entries(messages: Sequence[InputMessage]) -> list[PastEntry]:
    """What was said before. Calls of a client's own tools are no part of it."""
    roles = {"developer": "system"}
    said = [message for message in messages if message.role not in ("tool", "function") and message.text()]
    return [PastEntry(roles.get(message.role, message.role), message.text(), "") for message in said]


def _goes_on(run: TurnRun, *, is_asking: bool) -> Problem:
    place = f"/turns/{encoded_id(run.turn_id)}"
    status, code, detail = 504, "turn_goes_on", f"The turn {run.turn_id} has not ended yet. It goes on"
    if is_asking:
        status, code, detail = 409, _ASKING, f"{_DECIDE}, then the turn {run.turn_id} goes on"
    extras = {"code": code, "turn_id": run.turn_id}
    return Problem(status, f"{detail}: look at {place}.", headers={"location": place}, extras=extras)


class _Said:
    """What of a turn's events is text for a client that can take nothing back.

    A new attempt says its answer from the start: what the client has already is left out, if it is the same.
    """

    def __init__(self) -> None:
        self._sent = self._heard = ""
        self._has_sent = self._is_dead = False

    def more(self, event: LiveEvent) -> str | None:
        """The text that an event adds; None if a new attempt says something else."""
        body = event.body
        if isinstance(body, MessagesSnapshotEvent):
            self._is_dead = True
        elif isinstance(body, TextMessageStartEvent):
            self._heard = ""
            if not self._is_dead:
                self._sent, is_first = "", not self._has_sent
                return "" if is_first else "\n\n"
            self._is_dead = False
        elif isinstance(body, TextMessageContentEvent):
            self._heard += body.delta
            if self._heard.startswith(self._sent):
                more, self._sent, self._has_sent = self._heard[len(self._sent) :], self._heard, True
                return more
            return "" if self._sent.startswith(self._heard) else None
        elif isinstance(body, RunFinishedEvent) and len(self._heard) < len(self._sent):
            return None
        return ""


class _Stream:
    """Encodes the events of a run as those of a protocol of OpenAI. It ends at the first error."""

    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._said = _Said()
        self._has_started = self._is_over = False

    def __call__(self, event: LiveEvent) -> bytes:
        if self._is_over:
            return b""
        more, body = self._said.more(event), event.body
        if more is None:
            return self._failed("The answer broke off, and a new attempt says something else", "answer_changed")
        if isinstance(body, RunStartedEvent) and not self._has_started:
            self._has_started = True
            return self.started()
        if isinstance(body, RunErrorEvent):
            return self._failed(body.message, body.code or "turn_failed")
        if isinstance(body, RunFinishedEvent) and body.outcome is not None and body.outcome.type == "cancelled":
            return self._failed("The turn was cancelled", "cancelled")
        if isinstance(body, RunFinishedEvent) and isinstance(body.outcome, RunFinishedSuccessOutcome):
            self._is_over = True
            return self.ended(ChatReply.model_validate(body.result))
        return self.said(more) if more else b""

    def stopped(self) -> bytes:
        """What ends it if a person has to decide first."""
        return b"" if self._is_over else self._failed(_DECIDE, _ASKING)

    def _failed(self, message: str, code: str) -> bytes:
        self._is_over = True
        return self.failed(f"{message}: look at /turns/{encoded_id(self._run.turn_id)}.", code)

    def started(self) -> bytes:
        raise NotImplementedError

    def said(self, text: str) -> bytes:
        raise NotImplementedError

    def ended(self, reply: ChatReply) -> bytes:
        raise NotImplementedError

    def failed(self, message: str, code: str) -> bytes:
        raise NotImplementedError


class _ChatStream(_Stream):
    """https://platform.openai.com/docs/api-reference/chat-streaming"""

    def __init__(self, run: TurnRun, model: object, with_usage: bool) -> None:
        super().__init__(run)
        self._with_usage = with_usage
        self._head = _completion_head(run, "chat.completion.chunk", model)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return _data({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    def started(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def said(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def ended(self, reply: ChatReply) -> bytes:
        usage = _data({**self._head, "choices": [], "usage": _chat_usage(reply.usage)}) if self._with_usage else b""
        return self._chunk({}, "stop") + usage + _DONE

    def failed(self, message: str, code: str) -> bytes:
        return _data({"error": {"message": message, "type": "server_error", "param": None, "code": code}}) + _DONE


class _ResponseStream(_Stream):
    """https://platform.openai.com/docs/api-reference/responses-streaming"""

    def __init__(self, run: TurnRun, model: object, previous: str | None) -> None:
        super().__init__(run)
        self._model = str(model)
        self._previous = previous
        self._number = 0
        self._text = ""
        self._place = {"item_id": f"msg_{run.turn_id}", "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\n".encode() + _data(body)

    def started(self) -> bytes:
        response = _response(self._run, self._model, self._previous)
        return (
            self._event("response.created", response=response)
            + self._event("response.in_progress", response=response)
            + self._event("response.output_item.added", output_index=0, item=_item(self._run, None))
            + self._event("response.content_part.added", **self._place, part=_text_part(""))
        )

    def said(self, text: str) -> bytes:
        self._text += text
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def ended(self, reply: ChatReply) -> bytes:
        response = _response(self._run, reply.model, self._previous, reply, self._text)
        return (
            self._event("response.output_text.done", **self._place, text=self._text, logprobs=[])
            + self._event("response.content_part.done", **self._place, part=_text_part(self._text))
            + self._event("response.output_item.done", output_index=0, item=_item(self._run, self._text))
            + self._event("response.completed", response=response)
        )

    def failed(self, message: str, code: str) -> bytes:
        response = _response(self._run, self._model, self._previous)
        failed = {**response, "status": "failed", "error": {"code": "server_error", "message": message}}
        error = self._event("error", message=message, code=code, param=None)
        return error + self._event("response.failed", response=failed)


def _completion_head(run: TurnRun, kind: str, model: object) -> dict[str, Any]:
    head = {"id": _COMPLETION + run.turn_id, "object": kind, "created": _seconds(run.accepted.at), "model": model}
    return {**head, "metadata": _ids(run)}


def _completion(facts: TurnFacts, reply: ChatReply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.reply, "refusal": None}
    return {
        **_completion_head(facts.run, "chat.completion", reply.model),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": _chat_usage(reply.usage),
    }


def _response(
    run: TurnRun, model: str, previous: str | None, reply: ChatReply | None = None, text: str | None = None
) -> dict[str, Any]:
    """A response; in progress without its `reply`. `text` is what a stream has said, if not that."""
    return {
        "id": _RESPONSE + run.turn_id,
        "object": "response",
        "created_at": _seconds(run.accepted.at),
        "status": "completed" if reply else "in_progress",
        "model": model,
        "output": [_item(run, reply.reply if text is None else text)] if reply else [],
        "usage": _response_usage(reply.usage) if reply else None,
        "conversation": {"id": run.accepted.session_id},
        "previous_response_id": previous,
        "metadata": _ids(run),
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }


def _item(run: TurnRun, text: str | None) -> dict[str, Any]:
    """The message of a response; without text it has only begun."""
    return {
        "id": f"msg_{run.turn_id}",
        "type": "message",
        "role": "assistant",
        "status": "in_progress" if text is None else "completed",
        "content": [] if text is None else [_text_part(text)],
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _chat_usage(usage: Usage | None) -> dict[str, int]:
    asked, answered = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _response_usage(usage: Usage | None) -> dict[str, Any]:
    asked, answered = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + answered,
    }


def _ids(run: TurnRun) -> dict[str, str]:
    return {"turn_id": run.turn_id, "session_id": run.accepted.session_id}


def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())


def error_of_openai(problem: Problem) -> Response:
    """An error in OpenAI's shape (https://platform.openai.com/docs/guides/error-codes); what is 422 here is 400 there.

    Its clients raise by the status alone.
    """
    status = 400 if problem.status_code == 422 else problem.status_code
    kind, code = _TYPES.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    extras = dict(problem.extras)
    faults = extras.pop("errors", None)
    param = faults[0]["field"].removeprefix("body.") if faults else None
    error = {"message": problem.detail, "type": kind, "param": param, "code": code, **extras}
    headers = {**(problem.headers or {}), **({} if status in _REPEATABLE else {"x-should-retry": "false"})}
    return _json({"error": error}, status, headers)


def _documented(status: int) -> dict[str, Any]:
    """For the API document: an error by that status."""
    shape = {"type": "object", "required": ["message", "type", "param", "code"]}
    error = {"type": "object", "required": ["error"], "properties": {"error": shape}}
    return {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": error}}}


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, "application/json")


def _data(body: object) -> bytes:
    return b"data: " + to_json(body) + b"\n\n"
