"""The chat service's routes: protocol only; what they do is in `intake` and `turns`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel

from everturn.chat.admission import Admission
from everturn.chat.intake import Intake
from everturn.chat.records import TurnRecord
from everturn.chat.turn_view import reply_of
from everturn.chat.turns import Turns
from everturn.contracts.chat import ChatReply, Message, Turn, TurnStatus
from everturn.contracts.ids import id_fault
from everturn.errors import TerminalError
from everturn.settings import Settings
from everturn.web.headers import header_text
from everturn.web.paths import PathId, encoded_id
from everturn.web.prefer import Preferences, preferences_of
from everturn.web.problems import Problem, problem_responses

T = TypeVar("T")

_STATUS_OF_KIND = {"not_found": 404, "forbidden": 403, "key_reused": 422, "ended": 409, "not_failed": 409}


def add_chat_routes(router: APIRouter, settings: Settings, intake: Intake, turns: Turns, admission: Admission) -> None:
    """`/chat/` and `/turns/…` over the given parts."""
    routes = _Routes(settings, intake, turns, admission)
    router.add_api_route(
        "/chat/",
        routes.post_chat,
        methods=["POST"],
        response_model=ChatReply,
        tags=["chat"],
        summary="Send a message and get the reply",
        responses={202: _accepted(), **problem_responses(400, 403, 409, 413, 422, 502, 503)},
    )
    # By invocation the path comes without its slash at the end: Dapr 1.18 cleans it.
    router.add_api_route("/chat", routes.post_chat, methods=["POST"], response_model=ChatReply, include_in_schema=False)
    for name, handler, summary, codes in (
        ("", routes.get_turn, "Where a turn stands", (404, 503)),
        ("/cancel", routes.cancel, "End a turn without a reply", (404, 409, 503)),
        ("/pause", routes.pause, "Hold a turn", (404, 409, 503)),
        ("/resume", routes.resume, "Let a held turn go on", (404, 409, 503)),
        ("/rerun", routes.rerun, "Try a failed turn again, from the step that failed", (404, 409, 503)),
    ):
        router.add_api_route(
            "/turns/{turn_id}" + name,
            handler,
            methods=["POST"] if name else ["GET"],
            status_code=202 if name == "/rerun" else 200,
            response_model=Turn,
            response_model_exclude_none=True,
            tags=["turns"],
            summary=summary,
            responses=problem_responses(*codes),
        )


class _Routes:
    def __init__(self, settings: Settings, intake: Intake, turns: Turns, admission: Admission) -> None:
        self._settings = settings
        self._intake = intake
        self._turns = turns
        self._admission = admission

    async def post_chat(
        self,
        message: Message,
        preferences: Annotated[Preferences, Depends(preferences_of)],
        idempotency_key: Annotated[str | None, Header(description="Makes a repeated request the same turn.")] = None,
    ) -> Response:
        key = None if idempotency_key is None else header_text(idempotency_key)
        self._check(message, key)
        with self._admission.request():
            accepted = await _mapped(lambda: self._intake.accept(message, key))
            record = accepted.record
            if record.outcome is None and not preferences.respond_async:
                record = await self._turns.wait(record.turn_id, self._wait_s(preferences))
        if record.outcome is None:
            return _json(await self._turns.view(record.turn_id), 202, _location(record.turn_id))
        return _outcome(record)

    def _wait_s(self, preferences: Preferences) -> float:
        limit_s = self._settings.request_wait_s
        return limit_s if preferences.wait_s is None else min(limit_s, preferences.wait_s)

    def _check(self, message: Message, idempotency_key: str | None) -> None:
        if not message.text.strip():
            raise Problem(400, "Message text cannot be empty")
        if len(message.text) > self._settings.max_text_chars:
            raise Problem(
                413,
                f"Message text has {len(message.text)} characters; at most {self._settings.max_text_chars} are taken",
            )
        if idempotency_key is not None and (fault := id_fault(idempotency_key)):
            raise Problem(422, f"Idempotency-Key {fault}")

    async def get_turn(self, turn_id: PathId) -> Response:
        return _json(await _mapped(lambda: self._turns.view(turn_id)))

    async def cancel(self, turn_id: PathId) -> Response:
        return _json(await _mapped(lambda: self._turns.cancel(turn_id)))

    async def pause(self, turn_id: PathId) -> Response:
        return _json(await _mapped(lambda: self._turns.pause(turn_id)))

    async def resume(self, turn_id: PathId) -> Response:
        return _json(await _mapped(lambda: self._turns.resume(turn_id)))

    async def rerun(self, turn_id: PathId) -> Response:
        return _json(await _mapped(lambda: self._turns.rerun(turn_id)), 202, _location(turn_id))


def _outcome(record: TurnRecord) -> Response:
    """The answer to a request whose turn has ended."""
    outcome = record.outcome
    reply = reply_of(record)
    if outcome is None or (outcome.status is TurnStatus.COMPLETED and reply is None):
        raise Problem(500, "The server met an unexpected error.")
    if outcome.status is TurnStatus.COMPLETED and reply is not None:
        return _json(reply)
    extras = {"turn_id": record.turn_id}
    if outcome.status is TurnStatus.CANCELLED:
        raise Problem(409, f"turn {record.turn_id!r} was cancelled", extras=extras)
    reason = outcome.error.message if outcome.error else "it failed"
    kind = outcome.error.kind if outcome.error else "unknown"
    raise Problem(
        502,
        f"the step {outcome.step} of turn {record.turn_id!r} failed: {reason}",
        extras={**extras, "step": outcome.step, "kind": kind},
    )


async def _mapped(call: Callable[[], Awaitable[T]]) -> T:
    try:
        return await call()
    except TerminalError as error:
        status = _STATUS_OF_KIND.get(error.kind)
        if status is None:
            raise
        raise Problem(status, error.message) from None


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
