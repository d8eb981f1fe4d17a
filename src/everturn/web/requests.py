"""A request's way to its route and its answer's way back, and what a route reads of it: ids in paths, strict JSON.

Any id works in a path, percent-encoded, slashes too. Servers decode a path before routing, so an encoded slash would
split an id and a trailing newline would get lost in the router's pattern. `EncodedPath` routes on the path as it was
sent; `PathId` decodes one segment of it.
"""

import asyncio
import logging
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from fastapi import Depends, Header, Path, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everturn import tracing
from everturn.contracts.fields import checked_id
from everturn.dapr.origins import AllowedPages
from everturn.errors import TransientError
from everturn.web.problems import Problem, ProblemResponse, invalid, problem_of

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1_048_576
# A mebibyte comes within it at 0.3 Mbit/s; what takes longer holds a connection for nothing.
_BODY_TIMEOUT_S = 30.0
_SINGLE = frozenset({b"host", b"idempotency-key", b"dapr-api-token"})
_IS_NORMAL = re.compile(rb"[A-Za-z0-9._~/-]*").fullmatch
# Of JSON: what begins or separates values, outside strings. Behind each are an object or two and a few faults, however
# short it is. The longest conversation that is taken (`MAX_MESSAGES`) has some 14,000, with a call of a tool in each
# second message.
_MARK = re.compile(rb'(?:[^"\[{,]++|"(?:[^"\\]++|\\.)*+"?)*+(?:[\[{,]|\Z)', re.DOTALL)
_MOST_MARKS = 16_000
# Faults of a body that are named; a short body has few.
_MOST_FAULTS, _SHORT_BYTES = 100, 1_024
# https://mimesniff.spec.whatwg.org/#json-mime-type; a page can send none of them without a preflight.
_IS_JSON = re.compile(r"application/(?:[^\s;/]+\+)?json\s*(?:;|\Z)", re.IGNORECASE).match


class RequestMiddleware:
    """Handles the requests to all but the `open_paths`; those, and what is no request, the app gets as they are."""

    def __init__(self, app: ASGIApp, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_handled = scope["type"] == "http" and scope["path"] not in self._open_paths
        await (self.handle if is_handled else self._app)(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or have the app answer it."""
        raise NotImplementedError


class EncodedPath(RequestMiddleware):
    """Puts the percent-encoded path into `scope["path"]`, each segment in one normal form.

    Only unreserved characters (RFC 3986 section 2.3) stay as they are, so that `/ch%61t/` is still `/chat/`.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "path": _normal(scope)}, receive, send)


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


class UnexpectedErrors(RequestMiddleware):
    """An error that nobody expected is logged by its type and place and answered with a bare 500.

    Its message is not logged, because it can hold what a user wrote.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class SingleHeaders(RequestMiddleware):
    """400 if a header that may come once comes twice: a proxy could go by one, we by the other.

    RFC 9112 section 3.2 asks it of Host.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [name for name, _ in scope["headers"] if name in _SINGLE]
        answer = self._app
        if len(names) > len(set(names)):
            twice = next(name for name in names if names.count(name) > 1).decode()
            answer = ProblemResponse(Problem(400, f"The header {twice} was sent more than once."))
        await answer(scope, receive, send)


class OwnPages(RequestMiddleware):
    """403 for what a browser sends for a page that `pages` does not allow."""

    def __init__(self, app: ASGIApp, open_paths: Collection[str], pages: AllowedPages) -> None:
        super().__init__(app, open_paths)
        self._pages = pages

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._pages.refusal(scope["method"], Headers(scope=scope))
        answer: ASGIApp = self._app if refusal is None else ProblemResponse(Problem(403, refusal))
        await answer(scope, receive, send)


class Settled(RequestMiddleware):
    """An answer begins, and a part of a stream goes out, when `settled` has returned, so that what it rests on is on
    disk. 503 if that cannot be; a stream breaks off.
    """

    def __init__(self, app: ASGIApp, open_paths: Collection[str], settled: Callable[[], Awaitable[None]]) -> None:
        super().__init__(app, open_paths)
        self._settled = settled

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class Traced(RequestMiddleware):
    """A span for each request, in the caller's trace if it names one.

    Its attributes are those of https://opentelemetry.io/docs/specs/semconv/http/http-spans/ without the path, which has
    ids of users in it.
    """

    def __init__(self, app: ASGIApp, open_paths: Collection[str], service: str) -> None:
        super().__init__(app, open_paths)
        self._service = service

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class BodyLimit(RequestMiddleware):
    """A body over the limit is 413, announced or not; one that is late is 408.

    `limits` gives another limit in bytes to a path (as `EncodedPath` leaves it); all others have 1 MiB. `timeout_s`:
    seconds for the whole body, from when it is asked for.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int], timeout_s: float = _BODY_TIMEOUT_S) -> None:
        super().__init__(app)
        self._limits = limits
        self._timeout_s = timeout_s

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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


def encoded_id(value: str) -> str:
    """`value` as one segment of a path, for building links and requests."""
    return quote(value, safe="")


def _decoded_id(segment: str) -> str:
    try:
        return checked_id(unquote(segment, errors="strict"))
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None


PathId = Annotated[str, Path(description="An id of 1 to 256 characters, percent-encoded."), AfterValidator(_decoded_id)]
"""Type of a route's path parameter that is an id: decoded and checked; a bad one is 422."""


def header_text(value: str) -> str:
    """`value`, which servers hand on as Latin-1, as its sender meant it: UTF-8 if it is that.

    The bytes above ASCII have no meaning of their own in a header (RFC 9110 section 5.5), and clients send UTF-8.
    """
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers; `wait_s` is None if it does not say. What cannot be read is ignored (section 2)."""

    respond_async: bool = False
    wait_s: float | None = None


async def preferences_of(
    prefer: Annotated[list[str] | None, Header(description="`respond-async`, `wait=N` seconds (RFC 7240).")] = None,
) -> Preferences:
    """The preferences of a request, as a FastAPI dependency. Of a preference given twice the first counts.

    A coroutine, because FastAPI runs a plain function in a thread of its own.
    """
    respond_async, wait_s = False, None
    for token in ",".join(prefer or []).split(","):
        name, _, value = (part.strip().strip('"') for part in token.split(";")[0].partition("="))
        if name.lower() == "respond-async":
            respond_async = True
        elif name.lower() == "wait" and wait_s is None and value.isascii() and value.isdecimal():
            wait_s = float(value)
    return Preferences(respond_async, wait_s)


class _JsonRequest(Request):
    """`shape`: of what its body has to be, None without one."""

    def __init__(self, request: Request, shape: type[BaseModel] | None) -> None:
        super().__init__(request.scope, request.receive)
        self._shape = shape

    async def body(self) -> bytes:
        """Raises Problem (422) if there is a body that its sender does not call JSON."""
        body = await super().body()
        if body and not _IS_JSON(self.headers.get("content-type", "")):
            raise invalid(("content-type", "must be application/json"))
        return body

    async def json(self) -> Any:
        """The parsed body. What is no JSON text (RFC 8259), not UTF-8, too deep or too rich in parts is 422."""
        body = await self.body()
        if len(body) > _MOST_MARKS and next(islice(_MARK.finditer(body), _MOST_MARKS, None), None):
            raise invalid(("body", f"has more than {_MOST_MARKS} values"))
        try:
            value = from_json(body, allow_inf_nan=False)
        except ValueError:
            raise Problem(422, "body: is not valid JSON") from None
        if self._shape is not None and len(body) > _SHORT_BYTES:
            _check_faults(value, self._shape)
        return value


def _check_faults(value: object, shape: type[BaseModel]) -> None:
    """Raises Problem (422) if there are too many faults to name: FastAPI would make objects and a sentence of each."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        if error.error_count() > _MOST_FAULTS:
            raise invalid(("body", f"has {error.error_count()} faults")) from None


class JsonRoute(APIRoute):
    """A route whose body is parsed strictly and safely: FastAPI's own answers 400, or worse, to some broken JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        given = self.body_field.field_info.annotation if self.body_field else None
        shape = given if isinstance(given, type) and issubclass(given, BaseModel) else None

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request, shape))

        return handle_json


async def _until_answered() -> AsyncIterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Held = Annotated[ExitStack, Depends(_until_answered)]
"""Type of a route's parameter: what it holds is held until the request fails or its whole answer is sent."""


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
