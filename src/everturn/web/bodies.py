"""Bodies of requests: limited in size, JSON or refused."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everturn.web.problems import Problem, problem_response

MAX_BODY_BYTES = 1_048_576


class BodyLimit:
    """Middleware: a body over the limit is 413, whether or not its length was announced.

    `limits` gives another limit in bytes to a path (as `EncodedPath` leaves it); all others have 1 MiB.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await problem_response(_too_large(limit))(scope, receive, send)
            return
        seen = 0

        async def counted_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted_receive, send)


class _JsonRequest(Request):
    async def json(self) -> Any:
        """The parsed body. What is no JSON text (RFC 8259), not UTF-8 or nested too deeply is 422."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError:
            raise Problem(422, "body: is not valid JSON") from None


class JsonRoute(APIRoute):
    """A route whose body is parsed strictly and safely: FastAPI's own answers 400, or worse, to some broken JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body must have at most {limit} bytes.")
