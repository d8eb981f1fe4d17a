"""A hundred turns whose words a thousand listeners hear, each to the end; beside it the same turns with no listener."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import httpx2
import uvloop

from benchmarks.client import MESSAGE
from benchmarks.report import Figure
from benchmarks.scripted import SPOKEN
from benchmarks.service import Service, started

_TURNS, _LISTENERS_A_TURN = 100, 10
# Seconds for a word.
_WORD_S = 0.1


@dataclass(frozen=True, slots=True)
class _Measured:
    """Seconds of each turn to its end, and of each listener to its last event; `whole` of them heard all of it."""

    turns: Sequence[float]
    heard: Sequence[float]
    whole: int
    cpu_s: float
    memory_mb: float


def run() -> list[Figure]:
    quiet, listened = _measured(0), _measured(_LISTENERS_A_TURN)
    spoken_s = len(SPOKEN) * _WORD_S
    return [
        _figure(f"listeners that heard {_TURNS} turns to the letter", listened.whole, "listeners"),
        _figure(f"a turn of {spoken_s:g} s of words, p50", statistics.median(listened.turns), "s"),
        _figure("the same with no listener, p50", statistics.median(quiet.turns), "s"),
        _figure("from acceptance to a listener's last event, p50", statistics.median(listened.heard), "s"),
        _figure("the same, the slowest listener", max(listened.heard), "s"),
        _figure("CPU", listened.cpu_s, "s"),
        _figure("CPU with no listener", quiet.cpu_s, "s"),
        _figure("memory at the end", listened.memory_mb, "MB"),
        _figure("memory with no listener", quiet.memory_mb, "MB"),
    ]


def _figure(name: str, value: float, unit: str) -> Figure:
    return Figure("listeners", name, value, unit)


def _measured(listeners: int) -> _Measured:
    settings = {"BENCH_WORD_S": str(_WORD_S), "EVERTURN_MAX_MODEL_CALLS": str(_TURNS)}
    with started(**settings) as service:
        service.say(MESSAGE, "warm")
        before = service.cpu_s()
        turns, heard, whole = uvloop.run(_listen(service, listeners))
        return _Measured(turns, heard, whole, service.cpu_s() - before, service.rss_mb())


async def _listen(service: Service, listeners: int) -> tuple[list[float], list[float], int]:
    """Seconds of the turns, seconds of the listeners, and how many of them heard the whole reply."""
    said: list[bytes] = []
    heard: list[float] = []

    async def hear(turn_id: str, begun: float) -> None:
        said.append(await _stream(service, turn_id))
        heard.append(time.perf_counter() - begun)

    async with httpx2.AsyncClient(base_url=service.chat_url, timeout=120, trust_env=False) as client:

        async def turn(number: int) -> float:
            body = {"user_id": f"u{number}", "text": MESSAGE, "metadata": {"session_id": f"s{number}"}}
            begun = time.perf_counter()
            accepted = await client.post("/chat/", json=body, headers={"Prefer": "respond-async"})
            turn_id = accepted.raise_for_status().json()["turn_id"]
            await asyncio.gather(*(hear(turn_id, begun) for _ in range(listeners)))
            while True:  # at most twice: a stream ends with its turn
                view = (await client.get(f"/turns/{turn_id}")).raise_for_status().json()
                if view.get("finished_at"):
                    return _seconds(view["created_at"], view["finished_at"])
                await asyncio.sleep(1)

        turns = await asyncio.gather(*(turn(number) for number in range(_TURNS)))
    return turns, heard, sum(_text(body) == "".join(SPOKEN) for body in said)


async def _stream(service: Service, turn_id: str) -> bytes:
    """All that a stream answers. By hand: a thousand clients that decode what they read cost more than the service."""
    address = urlsplit(service.chat_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"GET /turns/{turn_id}/events HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode()
    )
    try:
        return await reader.read()
    finally:
        writer.close()


def _text(body: bytes) -> str:
    """What a stream says. No chunk of it ends within a line."""
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]
    return "".join(event.get("delta", "") for event in events)


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
