"""Requests over real sockets, and what comes back."""

import asyncio
import contextlib
import gzip
import socket
import threading
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request
from everturn.errors import TerminalError, TransientError

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Peer:
    """Answers each request with `answer`, and keeps its head; with no answer it stays silent."""

    answer: bytes | None = PLAIN
    heads: list[list[str]] = field(default_factory=list)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode().splitlines()[:-1])
                if self.answer is not None:
                    writer.write(self.answer)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def url(peer: Peer) -> AsyncIterator[str]:
    server = await asyncio.start_server(peer.meet, "127.0.0.1", 0)
    yield "http://{}:{}".format(*server.sockets[0].getsockname())
    server.close()


@pytest.fixture
async def transport(url: str) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(url, headers={"dapr-api-token": "secret"})
    yield transport
    await transport.close()


async def test_a_request_goes_out_as_it_is(peer: Peer, transport: HttpTransport) -> None:
    await transport.send(Request("GET", "/v1.0/state/store/a%2Fb%7E?x=%31", {"x-mine": "1"}))

    [[start, *headers]] = peer.heads
    assert start == "GET /v1.0/state/store/a%2Fb%7E?x=%31 HTTP/1.1"
    names = {header.partition(":")[0].lower() for header in headers}
    assert names == {"host", "accept", "dapr-api-token", "x-mine"}


async def test_the_length_of_a_body_is_its_own(peer: Peer, transport: HttpTransport) -> None:
    await transport.send(Request("POST", "/", {"content-length": "7"}, b"four"))
    await transport.send(Request("POST", "/"))

    lengths = [[line for line in head if line.lower().startswith("content-length")] for head in peer.heads]
    assert [[line.split()[-1] for line in each] for each in lengths] == [["4"], ["0"]]


async def test_an_answer_comes_back_in_the_encoding_that_was_asked_for(peer: Peer, transport: HttpTransport) -> None:
    packed = gzip.compress(b"hello")
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    peer.answer = head.encode() + packed

    response = await transport.send(Request("GET", "/", {"accept-encoding": "gzip"}))

    assert (response.body, dict(response.headers)) == (packed, {"content-encoding": "gzip"})


async def test_repeated_headers_are_one_list_and_redirects_an_answer(peer: Peer, transport: HttpTransport) -> None:
    peer.answer = b"HTTP/1.1 307 T\r\nLocation: /b\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n"

    response = await transport.send(Request("GET", "/"))

    assert (response.status, dict(response.headers)) == (307, {"location": "/b", "x-a": "1, 2"})
    assert len(peer.heads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b"",
    ],
)
async def test_half_an_answer_is_a_transient_fault(url: str, answer: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        transport = HttpTransport("http://{}:{}".format(*server.sockets[0].getsockname()), missing="nobody is there")
        with pytest.raises(TransientError, match="nobody is there") as raised:
            await transport.send(Request("POST", "/", body=b"x"))
        await transport.close()

    assert raised.value.kind == "unreachable"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_request_without_an_answer_is_not_sent_again(method: str) -> None:
    heads: list[bytes] = []

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        transport = HttpTransport("http://{}:{}".format(*server.sockets[0].getsockname()))
        with pytest.raises(TransientError):
            await transport.send(Request(method, "/"))
        await transport.close()

    assert len(heads) == 1


async def test_a_request_is_not_sent_on_a_connection_that_is_closed_by_now() -> None:
    answered, closed = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(PLAIN)
                answered.wait()
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)  # if no second connection comes
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        transport = HttpTransport("http://{}:{}".format(*listener.getsockname()))
        await transport.send(Request("POST", "/"))
        answered.set()
        closed.wait()  # and the loop has not heard of it

        response = await transport.send(Request("POST", "/"))

        await serving
        await transport.close()
    assert response.body == b"ok"


async def test_bytes_of_a_header_are_the_same_on_both_sides(peer: Peer, transport: HttpTransport) -> None:
    as_it_came = "ü €".encode().decode("latin-1")
    peer.answer = b"HTTP/1.1 200 OK\r\nx-one: \xe9\r\nx-two: " + "€".encode() + b"\r\ncontent-length: 0\r\n\r\n"

    response = await transport.send(Request("GET", "/", {"x-mine": as_it_came}))

    assert "x-mine: ü €" in peer.heads[0]
    assert [value.encode("latin-1") for value in response.headers.values()] == [b"\xe9", "€".encode()]


async def test_a_body_does_not_wait_for_its_peer_to_want_it(peer: Peer, transport: HttpTransport) -> None:
    await transport.send(Request("POST", "/", {"expect": "100-continue"}, b"four"))

    assert not [line for line in peer.heads[0] if line.lower().startswith("expect")]


async def test_what_cannot_be_in_a_target_is_escaped(peer: Peer, transport: HttpTransport) -> None:
    await transport.send(Request("GET", "/a b/é\n?x=%20 €"))

    assert peer.heads[0][0] == "GET /a%20b/%C3%A9%0A?x=%20%20%E2%82%AC HTTP/1.1"


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("x-mine", "canary\x01", "the value of its header 'x-mine' has a control character in it"),
        ("x-mine", "canary\n", "the value of its header 'x-mine' has a control character in it"),
        ("x\nmine", "canary", "the name of its header 'x\\nmine' has a control character in it"),
    ],
)
async def test_a_request_that_can_never_be_sent_is_a_terminal_fault_that_names_its_header(
    peer: Peer, transport: HttpTransport, name: str, value: str, wrong: str
) -> None:
    with pytest.raises(TerminalError) as raised:
        await transport.send(Request("GET", "/", {"x-fine": "1\t2", name: value}))
    await transport.send(Request("GET", "/"))

    assert raised.value.message == f"the request cannot be sent: {wrong}"
    assert "canary" not in "".join(traceback.format_exception(raised.value))
    assert len(peer.heads) == 1


async def test_a_header_of_all_requests_that_cannot_be_sent_is_named(url: str) -> None:
    transport = HttpTransport(url, headers={"dapr-api-token": "canary\n"})

    with pytest.raises(TerminalError) as raised:
        await transport.send(Request("GET", "/"))

    await transport.close()
    wrong = "the value of its header 'dapr-api-token' has a control character in it"
    assert raised.value.message == f"the request cannot be sent: {wrong}"


async def test_a_method_that_cannot_be_sent_is_a_terminal_fault(transport: HttpTransport) -> None:
    with pytest.raises(TerminalError, match="the request cannot be sent"):
        await transport.send(Request("GET\n", "/"))


async def test_a_body_that_nobody_reads_is_a_timeout() -> None:
    async def read_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await writer.wait_closed()

    async with await asyncio.start_server(read_nothing, "127.0.0.1", 0) as server:
        transport = HttpTransport("http://{}:{}".format(*server.sockets[0].getsockname()), timeout_s=0.05)
        with pytest.raises(TransientError, match="in time"):
            await transport.send(Request("POST", "/", body=bytes(16 * 1024 * 1024)))
        await transport.close()


async def test_silence_is_a_timeout(peer: Peer, url: str) -> None:
    peer.answer = None
    transport = HttpTransport(url, timeout_s=0.05)

    with pytest.raises(TransientError, match="in time") as raised:
        await transport.send(Request("GET", "/"))

    await transport.close()
    assert raised.value.kind == "timeout"


async def test_a_socket_of_the_machine_leads_there_too(peer: Peer, tmp_path: Path) -> None:
    path = str(tmp_path / "peer.sock")
    async with await asyncio.start_unix_server(peer.meet, path):
        transport = HttpTransport("http://localhost", socket=path)
        response = await transport.send(Request("GET", "/x"))
        await transport.close()

    assert (response.status, response.body) == (200, b"ok")
    assert "Host: localhost" in peer.heads[0]


async def test_a_closed_transport_reaches_nobody(transport: HttpTransport) -> None:
    await transport.send(Request("GET", "/"))
    await transport.close()

    with pytest.raises(TransientError):
        await transport.send(Request("GET", "/"))
