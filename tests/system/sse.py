"""Reads streams of events: an app is called as a server would call it, so that events can be read one by one."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """An event as a client reads it."""

    id: str
    data: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.data["type"])


def told_in(body: str) -> list[Told]:
    """The events in the body of an answer."""
    return [event for block in body.split("\n\n") if (event := _event(block)) is not None]


async def told_by(response: httpx2.Response) -> AsyncIterator[Told]:
    """The events of an answer that is streamed, one by one."""
    block: list[str] = []
    async for line in response.aiter_lines():
        if line:
            block.append(line)
            continue
        if event := _event("\n".join(block)):
            yield event
        block.clear()


def _event(block: str) -> Told | None:
    fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
    return Told(fields["id"], json.loads(fields["data"])) if fields else None


@dataclass
class Listening:
    """An open stream; `status` and `headers` are there once it is open. While `reads` is clear, its client takes no
    more of it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    blocks: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    read: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reads.set()

    async def next(self) -> Told | None:
        """The next event; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            while (block := await self.blocks.get()) is not None:
                if event := _event(block):
                    self.read.append(event)
                    return event
        return None

    async def until(self, kind: str) -> Told:
        """The next event of that type."""
        while (event := await self.next()) is not None:
            if event.type == kind:
                return event
        raise AssertionError(f"the stream ended without {kind}")

    async def rest(self) -> list[Told]:
        """All events to the end of the stream."""
        rest = []
        while (event := await self.next()) is not None:
            rest.append(event)
        return rest

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.opened.set()
            return
        await self.reads.wait()
        for block in message.get("body", b"").decode().split("\n\n"):
            if block:
                await self.blocks.put(block)
        if not message.get("more_body"):
            await self.blocks.put(None)


def _scope(method: str, target: str, headers: Mapping[str, str]) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn has it
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("everturn", 80),
    }


@asynccontextmanager
async def listening(
    app: FastAPI,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> AsyncIterator[Listening]:
    """The stream that the app answers with; it is closed by the client at the end of the block."""
    stream = Listening()
    content = b"" if body is None else json.dumps(body).encode()
    named = {"host": "localhost", "content-type": "application/json", "accept": "text/event-stream", **(headers or {})}
    scope = _scope(method, target, named)
    sent = False

    async def receive() -> Any:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        await stream.left.wait()
        return {"type": "http.disconnect"}

    serving = asyncio.ensure_future(app(scope, receive, stream.send))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await stream.opened.wait()
        yield stream
    finally:
        stream.left.set()
        stream.reads.set()
        async with asyncio.timeout(PATIENCE_S):
            await serving
