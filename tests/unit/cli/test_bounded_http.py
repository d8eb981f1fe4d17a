"""Heads, pipelining, idle connections and what is no request, over a real socket."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everturn.cli.bounded_http import MAX_HEADERS, BoundedHttp, Connections, bounded_by
from everturn.cli.process import WebServer

PATIENCE_S = 20.0
# What a limit is set to for a test that waits for it.
SHORT_S = 0.05
START = b"GET / HTTP/1.1\r\nhost: localhost\r\n"


class Server:
    """A server whose application answers when `gate` is open, with the connections of one listener."""

    def __init__(self, connections: Connections, refused: Counter[str]) -> None:
        self.connections, self.refused = connections, refused
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()
        self.asked: list[str] = []
        self.made: list[BoundedHttp] = []
        self.largest_queue = 0
        self.address = ("", 0)

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        self.is_asked.set()
        for connection in self.made:
            self.largest_queue = max(self.largest_queue, len(connection.pipeline))
        await self.gate.wait()
        headers = [(b"content-length", b"2"), (b"x-headers", str(len(scope["headers"])).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving(limit: int = 100, **limits: float) -> AsyncIterator[Server]:
    refused: Counter[str] = Counter()
    connections = Connections(limit, lambda reason: refused.update([reason]), **limits)
    server = Server(connections, refused)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server.address = listener.getsockname()

    class Noted(bounded_by(connections)):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            server.made.append(self)
            super().connection_made(transport)

    web = WebServer(server, listener, protocol=Noted)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield server
    finally:
        await web.stop(0)


async def ask(server: Server, data: bytes) -> bytes:
    """All that the server says until it closes."""
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


def status_and_type(answer: bytes) -> tuple[bytes, bool]:
    return answer.split()[1], b"content-type: application/problem+json\r\n" in answer


@pytest.mark.parametrize(
    "data",
    [
        START + b"x-long: " + b"a" * 66_000 + b"\r\n\r\n",
        START + b"x-long: " + b"a" * 1_000_000,
        START + b"".join(b"x-%d: 1\r\n" % number for number in range(MAX_HEADERS)) + b"\r\n",
        b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\r\n" * 40_000,
        START + b"transfer-encoding: chunked\r\n\r\n0\r\nx-long: " + b"a" * 100_000,
    ],
    ids=["a long header", "one without an end", "101 headers", "a long path", "empty lines", "a long trailer"],
)
async def test_a_head_over_a_limit_is_431_and_counted(data: bytes) -> None:
    async with serving() as server:
        server.gate.clear()
        answer = await ask(server, data)

    assert status_and_type(answer) == (b"431", True)
    assert server.refused == {"head": 1}


async def test_a_head_within_the_limits_is_answered() -> None:
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"a" * 600) for number in range(MAX_HEADERS - 2))

    async with serving() as server:
        answer = await ask(server, START + headers + b"connection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert f"x-headers: {MAX_HEADERS}\r\n".encode() in answer


async def test_a_client_that_is_answered_in_the_midst_of_its_body_gets_the_whole_answer() -> None:
    post = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n"

    async with serving() as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(post)
        begun = await reader.readexactly(1)
        for _ in range(30):
            writer.write(b"a" * 10_000)
            await writer.drain()
        answer = begun + await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"ok")


@pytest.mark.parametrize("data", [b"\x16\x03\x01 hello\r\n\r\n", START + b"content-length: -1\r\n\r\n"])
async def test_what_is_no_request_is_a_problem(data: bytes) -> None:
    async with serving() as server:
        answer = await ask(server, data)

    assert status_and_type(answer) == (b"400", True)
    assert server.refused == {"malformed": 1}


async def test_a_head_that_stops_half_way_is_408() -> None:
    async with serving(head_timeout_s=SHORT_S) as server:
        answer = await ask(server, START)

    assert status_and_type(answer) == (b"408", True)
    assert server.refused == {"slow": 1}


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(head_timeout_s=SHORT_S) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    assert server.refused == {"silent": 1}


async def test_a_connection_that_is_kept_alive_is_closed_in_the_end() -> None:
    async with serving(keep_alive_s=SHORT_S) as server:
        answer = await ask(server, START + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert not server.refused


async def test_a_request_that_is_worked_on_is_not_hurried() -> None:
    async with serving(head_timeout_s=SHORT_S, keep_alive_s=SHORT_S) as server:
        server.gate.clear()
        asyncio.get_running_loop().call_later(4 * SHORT_S, server.gate.set)
        answer = await ask(server, START + b"connection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_all_answered_and_few_are_held() -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % number for number in range(5_000))

    async with serving() as server:
        answer = await ask(server, requests + START + b"connection: close\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200") == 5_001
    assert server.asked == [*(f"/{number}" for number in range(5_000)), "/"]
    assert server.largest_queue < 300


async def test_a_body_behind_another_request_is_read_whole() -> None:
    body = b"a" * 500_000
    post = b"POST /%d HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (1, len(body)) + body

    async with serving() as server:
        answer = await ask(server, post * 3 + START + b"connection: close\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200") == 4


async def test_more_connections_than_there_are_places_take_those_of_idle_ones() -> None:
    async with serving(limit=3) as server:
        idle = [await asyncio.open_connection(*server.address) for _ in range(10)]
        answer = await ask(server, START + b"connection: close\r\n\r\n")
        for _, writer in idle:
            writer.close()

    assert answer.startswith(b"HTTP/1.1 200")
    assert server.refused == {"full": 8}


async def test_with_all_places_at_work_another_is_closed() -> None:
    async with serving(limit=1) as server:
        server.gate.clear()
        busy = asyncio.create_task(ask(server, START + b"connection: close\r\n\r\n"))
        await server.is_asked.wait()
        refused = b"?"
        with contextlib.suppress(ConnectionError):
            refused = await ask(server, START + b"\r\n")
        refused = refused.strip(b"?")
        server.gate.set()
        answer = await busy

    assert refused == b""
    assert server.refused == {"full": 1}
    assert answer.startswith(b"HTTP/1.1 200")
