"""What every request passes: normal paths, CORS, unexpected errors, the pages that may call, limits of bodies."""

import asyncio
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everturn import tracing
from everturn.dapr.origins import AllowedPages
from everturn.errors import TransientError
from everturn.web.problems import Problem, ProblemResponse, problem_of

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1_048_576
# A mebibyte comes within it at 0.3 Mbit/s; what takes longer holds a connection for nothing.
BODY_TIMEOUT_S = 30.0
_SINGLE = frozenset({b"host", b"idempotency-key", b"dapr-api-token"})
_IS_NORMAL = re.compile(rb"[A-Za-z0-9._~/-]*").fullmatch


class EncodedPath:
    """Middleware: puts the percent-encoded path into `scope["path"]`, each segment in one normal form.

    Only unreserved characters (RFC 3986 section 2.3) stay as they are, so that `/ch%61t/` is still `/chat/`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": _normal(scope)}
        await self._app(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's, with a refused preflight answered as every other error is.

    https://fetch.spec.whatwg.org/#http-cors-protocol
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return ProblemResponse(Problem(response.status_code, "This origin may not make such calls.", headers=headers))


class UnexpectedErrors:
    """Middleware: an error that nobody expected is logged by its type and place and answered with a bare 500.

    Its message is not logged, because it can hold what a user wrote.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:  # noqa: BLE001 - the edge of the request loop
            log.error("request_failed", extra={"error": type(error).__name__, "at": _place_of(error)})
            if started:
                raise ConnectionAbortedError("an answer broke off") from None
            await ProblemResponse(problem_of(error))(scope, receive, send)


class SingleHeaders:
    """Middleware: 400 if a header that may come once comes twice: a proxy could go by one, we by the other.

    RFC 9112 section 3.2 asks it of Host.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [name for name, _ in scope.get("headers", ()) if name in _SINGLE]
        if len(names) == len(set(names)):
            await self._app(scope, receive, send)
            return
        twice = next(name for name in names if names.count(name) > 1).decode()
        await ProblemResponse(Problem(400, f"The header {twice} was sent more than once."))(scope, receive, send)


class OwnPages:
    """Middleware: 403 for what a browser sends for a page that `pages` does not allow, except to `open_paths`."""

    def __init__(self, app: ASGIApp, pages: AllowedPages, open_paths: Collection[str]) -> None:
        self._app = app
        self._pages = pages
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            refusal = self._pages.refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await ProblemResponse(Problem(403, refusal))(scope, receive, send)


class Settled:
    """Middleware: an answer begins, and a part of a stream goes out, when `settled` has returned, so that what it rests
    on is on disk. 503 if that cannot be; a stream breaks off.
    """

    def __init__(self, app: ASGIApp, settled: Callable[[], Awaitable[None]], open_paths: Collection[str]) -> None:
        self._app = app
        self._settled = settled
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        refused = False

        async def settled_send(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                try:
                    await self._settled()
                except TransientError as error:
                    refused = True
                    await ProblemResponse(problem_of(error))(scope, receive, send)
            elif message.get("more_body"):
                await self._settled()
            if not refused:
                await send(message)

        await self._app(scope, receive, settled_send)


class Traced:
    """Middleware: a span for each request, in the caller's trace if it names one; none for the `quiet` paths.

    Its attributes are those of https://opentelemetry.io/docs/specs/semconv/http/http-spans/ without the path, which has
    ids of users in it.
    """

    def __init__(self, app: ASGIApp, service: str, quiet: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._quiet:
            await self._app(scope, receive, send)
            return
        method, parent = scope["method"], Headers(scope=scope).get(tracing.HEADER)
        with tracing.span(self._service, method, parent=parent, kind="SERVER") as recording:

            async def noting_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    recording.note(http__response__status_code=message["status"])
                await send(message)

            await self._app(scope, receive, noting_send)
            route = getattr(scope.get("route"), "path", "")
            recording.rename(f"{method} {route}".strip())
            recording.note(http__request__method=method, http__route=route)


class BodyLimit:
    """Middleware: a body over the limit is 413, announced or not; one that is late is 408.

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
            await ProblemResponse(_too_large(limit))(scope, receive, send)
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


def _normal(scope: Scope) -> str:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"])
    if _IS_NORMAL(raw):
        return raw.decode("ascii")
    return "/".join(quote_from_bytes(unquote_to_bytes(segment), safe="") for segment in raw.split(b"/"))


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body must have at most {limit} bytes.")


def _too_late() -> Problem:
    """The rest may still come: the connection cannot be used again (RFC 9110 section 15.5.9)."""
    return Problem(408, "The body did not come in time.", headers={"connection": "close"})


def _place_of(error: Exception) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return [f"{frame.name}:{frame.lineno}" for frame in frames]
