"""A real OpenAI-compatible endpoint on loopback that answers by script and records what it was asked."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, assert_never

from everturn.testing.fault_proxy import reset
from everturn.testing.model_answers import Answer, Cut, Endless, Held, Reset, Spoken, Whole, status

_HOST = "127.0.0.1"
_CHUNK = b" " * 65_536


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request as it came: header names in lower case, the body parsed."""

    path: str
    headers: Mapping[str, str]
    body: Any

    def is_about(self, text: str) -> bool:
        """Whether this asks for the reply to a message that contains `text`. A summary asks without tools: not that."""
        if not isinstance(self.body, dict) or not self.body.get("tools"):
            return False
        messages = self.body.get("messages") or [{}]
        return text in str(messages[-1].get("content"))

    @property
    def is_streamed(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


class ModelEndpoint:
    """`async with ModelEndpoint() as endpoint:`, then point a model at `endpoint.base_url`.

    Answers come from `script_for` if one fits, then from `script`, in order; without one left it is `otherwise`.
    """

    def __init__(self, *script: Answer, otherwise: Answer | None = None) -> None:
        self.requests: list[ModelRequest] = []
        self._script = deque(script)
        self._scripts_for: dict[str, deque[Answer]] = {}
        self._otherwise = otherwise or status(500)
        self._changed = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://{_HOST}:{self.port}/v1"

    def script(self, *answers: Answer) -> None:
        """Add `answers` to the script."""
        self._script.extend(answers)

    def script_for(self, text: str, *answers: Answer) -> None:
        """Add `answers` for those requests alone that are about `text`: for many turns at once."""
        self._scripts_for.setdefault(text, deque()).extend(answers)

    def requests_about(self, text: str) -> list[ModelRequest]:
        return [request for request in self.requests if request.is_about(text)]

    async def asked(self, times: int, about: str = "") -> None:
        """Return once there have been `times` requests, of those about `about` if that is given."""

        def enough() -> bool:
            return len(self.requests_about(about) if about else self.requests) >= times

        async with self._changed:
            await self._changed.wait_for(enough)

    async def hung_up(self) -> None:
        """Return once no connection is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, _HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                async with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                answer = self._next_answer(request)
                if isinstance(answer, Held) and not await _comes(answer.until, reader):
                    break
                if not await self._give(answer, request, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the endpoint is closed
        finally:
            writer.close()
            self._connections.discard(task)
            async with self._changed:
                self._changed.notify_all()

    def _next_answer(self, request: ModelRequest) -> Answer:
        for text, answers in self._scripts_for.items():
            if answers and request.is_about(text):
                return answers.popleft()
        return self._script.popleft() if self._script else self._otherwise

    async def _give(self, answer: Answer, request: ModelRequest, writer: asyncio.StreamWriter) -> bool:
        """Give `answer`; whether the connection can take another request."""
        match answer:
            case Whole():
                await _send(writer, _head(answer, len(answer.body)) + answer.body)
                return True
            case Cut():
                await _send(writer, _head(Whole(b""), len(answer.body) + 1_000) + answer.body)
                return False
            case Reset():
                reset(writer)
                return False
            case Held():
                await answer.until.wait()
                return await self._give(answer.then, request, writer)
            case Spoken() if not request.is_streamed:
                return await self._give(answer.whole(), request, writer)
            case Spoken():
                await _speak(answer, writer)
                return False
            case Endless():
                headers = "content-type: application/json\r\nconnection: close"
                await _send(writer, f"HTTP/1.1 {answer.status} Scripted\r\n{headers}\r\n\r\n".encode())
                while True:
                    await _send(writer, _CHUNK)
            case _:
                assert_never(answer)


async def _comes(event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Whether `event` is set before the client goes away, which asks for nothing else meanwhile."""
    set_, gone = asyncio.ensure_future(event.wait()), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait([set_, gone], return_when=asyncio.FIRST_COMPLETED)
        return set_.done()
    finally:
        for task in (set_, gone):
            task.cancel()
        await asyncio.gather(set_, gone, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _speak(answer: Spoken, writer: asyncio.StreamWriter) -> None:
    await _send(writer, b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    for piece in answer.chunks():
        await (_send(writer, piece) if isinstance(piece, bytes) else piece.wait())
    if answer.is_cut:
        reset(writer)


def _head(answer: Whole, length: int) -> bytes:
    headers = {"content-type": "application/json", "content-length": str(length), **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} Scripted\r\n{lines}\r\n".encode("latin-1")


async def _read_request(reader: asyncio.StreamReader) -> ModelRequest | None:
    """The next request of a connection, None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return ModelRequest(request_line.split(" ")[1], headers, json.loads(body) if body else None)
