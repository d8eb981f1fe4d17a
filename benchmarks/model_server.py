"""A process with an OpenAI-compatible endpoint that costs little: one answer to everything, and a count of requests."""

import asyncio
import json
import subprocess
import sys
from types import TracebackType
from typing import Self, cast

import httpx2
import uvloop

from benchmarks.scripted import REPLY

_HOST = "127.0.0.1"
_COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "scripted",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 50, "total_tokens": 350},
}


class ModelServer:
    """`with ModelServer() as model:` starts it; `settings` are those of a service that asks it."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.model_server"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._url = f"http://{_HOST}:{int(self._process.stdout.readline())}"
        self.settings = {"EVERTURN_MODEL_BASE_URL": f"{self._url}/v1", "EVERTURN_MODEL_NAME": "scripted"}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def calls(self) -> int:
        """How often it was asked, for replies and for summaries."""
        return int(httpx2.get(f"{self._url}/calls", trust_env=False).text)


class _Connection(asyncio.Protocol):
    """Requests of one connection, which come one after the other."""

    calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self._transport, self._received = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._received = b""
        if head.startswith(b"GET "):
            self._answer(str(_Connection.calls).encode())
            return
        _Connection.calls += 1
        self._answer(json.dumps(_COMPLETION).encode())

    def _answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def _length(head: bytes) -> int:
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(lengths[0].partition(b":")[2]) if lengths else 0


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, _HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
