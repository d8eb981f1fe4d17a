"""Errors as `application/problem+json` (RFC 9457), and the one place that maps errors to statuses.

Every body has `type`, `title`, `status` and `detail`; `type` is always `about:blank`, so `title` is the status's own
phrase (section 4.2.1). No answer repeats the text of a message.
"""

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everturn.errors import ConflictError, TerminalError, TransientError

PROBLEM_MEDIA_TYPE = "application/problem+json"
# Asked of clients if nobody knows better: long enough for a sidecar to come back, short enough for a person.
_DEFAULT_RETRY_AFTER_S = 1.0

# The statuses of what a client did that cannot be done, by `TerminalError.kind`. A new kind of error is a line here.
STATUS_OF_KIND: Mapping[str, int] = {
    "not_found": 404,
    "forbidden": 403,
    "key_reused": 422,
    "ended": 409,
    "decided": 409,
    "busy": 409,
    "merged": 409,
    "not_failed": 409,
    "no_context": 409,
}
# Of what may work later, by `TransientError.kind`; the rest is 503.
_LATER: Mapping[str, int] = {"too_many_open": 429, "tokens_used_up": 429}


class ProblemDetails(BaseModel):
    """The body of every error; some have more members, such as `turn_id` and `step`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Problem(HTTPException):
    """Raised by a route to answer with an error. `extras` are further members of the body.

    A kind of HTTPException, because FastAPI hands only that on untouched from inside the reading of a body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.extras: Mapping[str, Any] = extras or {}


def problem_of(error: Exception) -> Problem:
    """The problem that answers `error`: the one place where errors become statuses.

    A Problem is itself; wrong input is 422; what may work later is 503 or 429 with Retry-After (RFC 9110
    section 10.2.3); a refusal has the status of its kind; all else is 500 and says nothing of its cause.
    """
    match error:
        case Problem():
            return error
        case HTTPException():
            return Problem(error.status_code, error.detail, headers=error.headers)
        case RequestValidationError():
            return invalid(*((".".join(map(str, fault["loc"])), _reason(fault)) for fault in error.errors()))
        case TransientError():
            wait_s = _DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
            return unavailable(error.message, retry_after_s=wait_s, status=_LATER.get(error.kind, 503))
        case TerminalError() if error.kind in STATUS_OF_KIND:
            return Problem(STATUS_OF_KIND[error.kind], error.message)
        case ConflictError():
            return problem_of(TransientError("too many writers at once"))
        case _:
            return Problem(500, "The server met an unexpected error.")


def unavailable(detail: str, *, retry_after_s: float, status: int) -> Problem:
    """A 503, or 429, that asks the client to come back after `retry_after_s` seconds (rounded up, at least 1)."""
    return Problem(status, detail, headers={"retry-after": str(max(1, ceil(retry_after_s)))})


def invalid(*faults: tuple[str, str]) -> Problem:
    """A 422 for these fields and what is wrong with each."""
    errors = [{"field": field, "message": message} for field, message in faults]
    return Problem(422, "; ".join(map(": ".join, faults)), extras={"errors": errors})


Shapes = Mapping[str, Callable[[Problem], Response]]
"""How an error is answered on paths that begin so: in the words of another API, whose clients expect them."""


class ProblemResponse(Response):
    """A problem as an answer, in the shape that the application has for the path."""

    def __init__(self, problem: Problem) -> None:
        details = ProblemDetails(
            title=HTTPStatus(problem.status_code).phrase, status=problem.status_code, detail=problem.detail
        )
        body = to_json({**problem.extras, **details.model_dump()})
        super().__init__(body, problem.status_code, problem.headers, PROBLEM_MEDIA_TYPE)
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shapes: Shapes = scope["app"].state.shapes if "app" in scope else {}
        for beginning, shape in shapes.items():
            if scope["path"].startswith(beginning):
                await shape(self._problem)(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI descriptions of the problems that a route can answer: `responses=problem_responses(404, 409)`."""
    return {status: _documented(status) for status in statuses}


def handle_problems(app: FastAPI, shapes: Shapes) -> None:
    """Make `app` answer each expected error with its problem; `requests.UnexpectedErrors` answers the rest."""
    app.state.shapes = shapes

    async def answer(_: Request, error: Exception) -> Response:
        if isinstance(error, TerminalError) and error.kind not in STATUS_OF_KIND:
            raise error
        return ProblemResponse(problem_of(error))

    for kind in (HTTPException, RequestValidationError, TransientError, TerminalError, ConflictError):
        app.add_exception_handler(kind, answer)


def _reason(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _documented(status: int) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    example = ProblemDetails(title=phrase, status=status, detail="One sentence that says what is wrong.").model_dump()
    content = {"schema": dict(_problem_schema()), "example": example}
    return {"description": phrase, "content": {PROBLEM_MEDIA_TYPE: content}}


@cache
def _problem_schema() -> dict[str, Any]:
    """Made once: every route names it several times, and a start waits for them all."""
    return ProblemDetails.model_json_schema()
