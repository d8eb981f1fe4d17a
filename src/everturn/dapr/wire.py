"""A request to a sidecar's HTTP API and its response: the seam that both runtimes share. `AsgiTransport` carries one to
an app in the same loop, without a socket (https://asgi.readthedocs.io/en/latest/specs/www.html); `http_transport` has
sockets. `decode` reads their JSON.

Paths are as on the wire: percent-encoded, with their query.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import msgspec

from everturn.errors import TransientError


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is path and query (`/v1.0/state/statestore/a%2Fb?x=1`); header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` has lower-case names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Transport(Protocol):
    """Carries a request to a sidecar (or from a runtime to its app) and brings the response back."""

    async def send(self, request: Request) -> Response:
        """Send `request`; any status is a response.

        Raises TransientError (kind `unreachable` or `timeout`) if no whole response came back, TerminalError if such a
        request can never be sent.
        """
        ...

    async def close(self) -> None: ...


Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

log = logging.getLogger(__name__)

_VERSIONS = {"version": "3.0", "spec_version": "2.4"}
_HOST = (b"host", b"localhost")


class AsgiTransport:
    """A `Transport` that calls `app`, which can be connected later: an app needs its sidecar, a sidecar its app.

    What the app raises is logged and is a 500 here, as a server would make of it.
    """

    def __init__(self, app: AsgiApp | None = None) -> None:
        self._app = app

    def connect(self, app: AsgiApp) -> None:
        self._app = app

    async def send(self, request: Request) -> Response:
        if self._app is None:
            raise TransientError("the app has not started yet", kind="unreachable")
        exchange = _Exchange(request.body)
        try:
            await self._app(_scope(request), exchange.receive, exchange.send)
        except Exception:  # the edge of the app: whatever it raises is its answer 500
            log.exception("app_raised", extra={"method": request.method})
            return Response(500)
        return exchange.response()

    async def close(self) -> None:
        """Nothing to close: the app belongs to its owner."""


class _Exchange:
    """One request's body going in and the response's messages coming out."""

    __slots__ = ("_body", "_chunks", "_complete", "_headers", "_request_read", "_status")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._request_read = False
        self._complete = asyncio.Event()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []

    async def receive(self) -> Message:
        if not self._request_read:
            self._request_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = joined(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            if chunk := message.get("body", b""):
                self._chunks.append(chunk)
            if not message.get("more_body", False):
                self._complete.set()

    def response(self) -> Response:
        if self._status == 0 or not self._complete.is_set():
            log.error("app_gave_no_response")
            return Response(500)
        return Response(self._status, self._headers, b"".join(self._chunks))


def joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The header fields of a response. Repeated ones are one list (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _scope(request: Request) -> MutableMapping[str, Any]:
    raw_path, _, query = request.target.partition("?")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    if "host" not in request.headers:
        headers.append(_HOST)
    if "content-length" not in request.headers and request.body:
        headers.append((b"content-length", str(len(request.body)).encode()))
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii", "surrogateescape"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("in-process", 80),
        "extensions": {},
        "state": {},
    }


T = TypeVar("T")


class JsonError(ValueError):
    """The body is no JSON, or not of the shape that was asked for. The text says what is wrong."""


def decode(body: bytes | str, shape: type[T]) -> T:
    """`body` (RFC 8259) as a `shape` that msgspec knows, whose `Raw` keeps a part as the bytes that came.

    Nothing is built of what `shape` does not have. Of a repeated name the last counts. Raises JsonError.
    """
    try:
        if isinstance(body, bytes):
            body.decode()  # msgspec passes over what is in a string that nobody reads
        return msgspec.json.decode(body, type=shape)
    except UnicodeError as error:
        raise JsonError("not UTF-8") from error
    except RecursionError as error:
        raise JsonError("nested too deep") from error
    except msgspec.MsgspecError as error:
        raise JsonError(str(error)) from error
