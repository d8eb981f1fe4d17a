"""Bodies of requests: limited in size and time, JSON or refused."""

import asyncio
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
# A mebibyte comes within it at 0.3 Mbit/s; what takes longer holds a connection for nothing.
BODY_TIMEOUT_S = 30.0


class BodyLimit:
    """Middleware: a body over the limit is 413, whether or not its length was announced; one that is late is 408.

    `limits` gives another limit in bytes to a path (as `EncodedPath` leaves it); all others have 1 MiB. `timeout_s`:
    seconds for the whole body, from when it is asked for.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int], timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._limits = limits
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await problem_response(_too_large(limit))(scope, receive, send)
            return
        seen, deadline, complete = 0, 0.0, False

        async def limited_receive() -> Message:
            nonlocal seen, deadline, complete
            if complete:  # what comes now is that the client leaves, whenever that is
                return await receive()
            deadline = deadline or asyncio.get_running_loop().time() + self._timeout_s
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _too_late() from None
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, limited_receive, send)


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


def _too_late() -> Problem:
    """The rest may still come: the connection cannot be used again (RFC 9110 section 15.5.9)."""
    return Problem(408, "The body did not come in time.", headers={"connection": "close"})
