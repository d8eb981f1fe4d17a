"""Requests as bytes, for what no HTTP client would send, and answers as they come."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 10.0
_CHUNK = 65_536

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Place:
    """An address to attack, and the process behind it if it is ours. `token`: what an honest caller shows.
    `grpc_port`: a sidecar's other port."""

    host: str
    port: int
    pid: int | None = None
    token: str | None = None
    health: str = "/healthz"
    grpc_port: int | None = None

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Status 0: the connection was closed without one; `late`: it is open, and none came in time."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    late: bool = False

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The parsed body, None if it is no JSON."""
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    def __str__(self) -> str:
        if self.late:
            return "no answer"
        return str(self.status) if self.status else "closed"


def head(method: str, path: str, headers: Headers) -> bytes:
    """The bytes of a request's head, exactly as given."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("utf-8")


async def ask(
    place: Place,
    method: str,
    path: str,
    headers: Headers = (),
    body: bytes | None = None,
    patience_s: float = PATIENCE_S,
) -> Answer:
    """One request. Content-Length and Connection: close are added, and Host if `headers` have none."""
    names = {name.lower() for name, _ in headers}
    added = [] if "host" in names else [("Host", place.authority)]
    if body is not None:
        added.append(("Content-Length", str(len(body))))
    data = head(method, path, [*added, *headers, ("Connection", "close")]) + (body or b"")
    return await exchange(place, data, patience_s)


async def ask_json(
    place: Place,
    method: str,
    path: str,
    value: object = None,
    headers: Headers = (),
    patience_s: float = PATIENCE_S,
) -> Answer:
    """One request of an honest client: JSON, with the token if the place has one."""
    sent = None if value is None else json.dumps(value).encode()
    given = list(headers)
    if place.token is not None:
        given.append(("dapr-api-token", place.token))
    if sent is not None and not any(name.lower() == "content-type" for name, _ in given):
        given.append(("Content-Type", "application/json"))
    return await ask(place, method, path, given, sent, patience_s)


async def exchange(place: Place, data: bytes, patience_s: float = PATIENCE_S) -> Answer:
    """Send `data` on a connection of its own and read one answer."""
    answer, _ = await send_until_answered(place, [data], patience_s)
    return answer


async def send_until_answered(
    place: Place, parts: Iterable[bytes], patience_s: float = PATIENCE_S
) -> tuple[Answer, int]:
    """Send `parts` until an answer comes or the other side closes; the answer, and how many bytes were taken."""
    taken = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        with contextlib.suppress(ConnectionError):
            for part in parts:
                taken += await _send(writer, part)

    async with connection(place) as (reader, writer):
        answered, sending = asyncio.create_task(_read_answer(reader)), asyncio.create_task(send(writer))
        try:
            await asyncio.wait([answered], timeout=patience_s)
            return (answered.result() if answered.done() else Answer(late=True)), taken
        finally:
            answered.cancel()
            sending.cancel()


@contextlib.asynccontextmanager
async def connection(place: Place) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, cut off at the end without waiting for anybody."""
    reader, writer = await asyncio.open_connection(place.host, place.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> int:
    view = memoryview(data)
    for start in range(0, len(view), _CHUNK):
        writer.write(view[start : start + _CHUNK])
        await writer.drain()
    return len(data)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    """The first answer on a connection; its end is that of its length, or of the connection."""
    try:
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        status, length = int(status_line.split(" ")[1]), headers.get("content-length")
        if status == 204:
            return Answer(status, headers)
        body = await (reader.read() if length is None else reader.readexactly(int(length)))
        return Answer(status, headers, body)
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
        return Answer()
