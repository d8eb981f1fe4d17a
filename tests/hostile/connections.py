"""Below the application: heads, connections, pipelining."""

import asyncio
import contextlib
from collections.abc import Iterator

from tests.hostile.attack import CHAT, MEMORY, SIDECAR, Scene, Seen, Size, attack, seen
from tests.hostile.stages import FEW_FILES, NotHere, Stage
from tests.hostile.wire import Answer, Place, ask, connection, exchange, head, send_until_answered

_MIB = 1_048_576
# Bytes that the sockets of both sides may hold on their own, beyond what the server has read.
_BUFFERS = 12 * _MIB
_MOST_GROWTH_MB = 24.0
# What a limit of 20 s, and one of 75 s, is given on top.
_HEAD_S, _IDLE_S, _GRACE_S = 20.0, 75.0, 5.0
_DRIP_S = 2.0
_PATIENT_CHAT = (Stage.PATIENT, "chat")


def _start(place: Place) -> bytes:
    return f"GET {place.health} HTTP/1.1\r\nHost: {place.authority}\r\n".encode()


@attack("431, below 1 MiB", CHAT, MEMORY, SIDECAR)
async def sends_a_header_of_200_mib(scene: Scene) -> Seen:
    size = 200 * _MIB if scene.site.large else 32 * _MIB

    def parts() -> Iterator[bytes]:
        yield _start(scene.watch.place) + b"X-Long: "
        for _ in range(size // _MIB):
            yield b"a" * _MIB
        yield b"\r\n\r\n"

    answer, taken = await send_until_answered(scene.watch.place, parts(), scene.site.patience_s)
    refused = answer.status in (0, 431) and not answer.late and taken < _BUFFERS
    return Seen(refused, f"{answer} after {taken / 1e6:.0f} MB")


@attack("431", CHAT, MEMORY, SIDECAR)
async def sends_a_million_headers(scene: Scene) -> Seen:
    count = 1_000_000 if scene.site.large else 50_000

    def parts() -> Iterator[bytes]:
        yield _start(scene.watch.place)
        for start in range(0, count, 10_000):
            yield b"".join(b"X-%d: 1\r\n" % number for number in range(start, start + 10_000))
        yield b"\r\n"

    answer, taken = await send_until_answered(scene.watch.place, parts(), scene.site.patience_s)
    return Seen(answer.status in (0, 431) and not answer.late, f"{answer} after {taken / 1e6:.1f} MB")


@attack("431", CHAT, SIDECAR, cases=("101 headers", "66 KiB", "a path of 66 KiB"))
async def sends_a_head_just_over_a_limit(scene: Scene) -> Seen:
    place, health = scene.watch.place, scene.watch.place.health
    match scene.case:
        case "101 headers":
            return seen(await ask(place, "GET", health, [(f"X-{number}", "1") for number in range(99)]), 431)
        case "66 KiB":
            return seen(await ask(place, "GET", health, [("X-Long", "a" * 66 * 1024)]), 431)
        case _:
            return seen(await ask(place, "GET", f"{health}?{'a' * 66 * 1024}"), 414, 431)


@attack("answered", CHAT, SIDECAR)
async def honest_head_of_30_kib_is_answered(scene: Scene) -> Seen:
    headers = [(f"X-{number}", "a" * 400) for number in range(75)]
    return seen(await ask(scene.watch.place, "GET", scene.watch.place.health, headers), 200, 204)


@attack("application/problem+json", CHAT, MEMORY, cases=("no HTTP", "bad header", "bad length", "two lengths"))
async def sends_what_is_no_request(scene: Scene) -> Seen:
    start = _start(scene.watch.place)
    data = {
        "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
        "bad header": start + b"no colon\r\n\r\n",
        "bad length": start + b"Content-Length: -1\r\n\r\n",
        "two lengths": start + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    }[scene.case]
    answer = await exchange(scene.watch.place, data)
    refused = 400 <= answer.status < 500 and answer.content_type == "application/problem+json"
    return Seen(refused, f"{answer} {answer.content_type or 'without a type'}")


@attack("400", CHAT, MEMORY, SIDECAR)
async def sends_two_hosts(scene: Scene) -> Seen:
    place = scene.watch.place
    headers = [("Host", place.authority), ("Host", "evil.example")]
    return seen(await ask(place, "GET", place.health, headers), 400)


@attack("400", CHAT, MEMORY, SIDECAR)
async def sends_no_host(scene: Scene) -> Seen:
    """RFC 9112 section 3.2 asks for one."""
    return seen(await exchange(scene.watch.place, head("GET", scene.watch.place.health, ())), 400)


@attack("answered", CHAT, SIDECAR)
async def honest_probe_of_http_1_0_needs_no_host(scene: Scene) -> Seen:
    data = head("GET", scene.watch.place.health, ()).replace(b"HTTP/1.1", b"HTTP/1.0")
    return seen(await exchange(scene.watch.place, data), 200, 204)


@attack("400", CHAT, SIDECAR)
async def sends_a_length_and_chunks(scene: Scene) -> Seen:
    start = _start(scene.watch.place)
    data = start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    return seen(await exchange(scene.watch.place, data), 400)


@attack(
    f"closed within {_HEAD_S:.0f} s", _PATIENT_CHAT, (Stage.PATIENT_SIDECAR, "sidecar"), size=Size.SLOW, beside=True
)
async def sends_heads_that_never_end(scene: Scene) -> Seen:
    """Twenty connections with a byte of their heads every two seconds."""
    place = scene.watch.place
    closed = await asyncio.gather(*(_drip(place, _start(place) + b"X-Slow: ") for _ in range(20)))
    return Seen(all(closed), f"{sum(closed)} of {len(closed)} closed")


@attack(f"closed within {_IDLE_S:.0f} s", _PATIENT_CHAT, cases=("silent", "kept alive"), size=Size.SLOW, beside=True)
async def keeps_idle_connections(scene: Scene) -> Seen:
    """Fifty connections that send nothing, or one request and then nothing."""
    first = b"" if scene.case == "silent" else _start(scene.watch.place) + b"\r\n"
    closed = await asyncio.gather(*(is_closed_when_idle(scene.watch.place, first, _IDLE_S) for _ in range(50)))
    return Seen(all(closed), f"{sum(closed)} of {len(closed)} closed")


@attack("both ports answer", (Stage.FEW_FILES, "chat"), (Stage.FEW_FILES, "memory"))
async def takes_every_descriptor_with_idle_connections(scene: Scene) -> Seen:
    """More connections to one service than the process may have descriptors."""
    places = scene.site.places
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(FEW_FILES + 64):
            with contextlib.suppress(OSError):
                await stack.enter_async_context(connection(scene.watch.place))
        answers = await asyncio.gather(*(answers_health(place) for place in places.values()))
    said = [f"{name} {answer}" for name, answer in zip(places, answers, strict=True)]
    return Seen(all(answer.status == 200 for answer in answers), ", ".join(said))


async def answers_health(place: Place) -> Answer:
    try:
        return await ask(place, "GET", place.health, patience_s=2.0)
    except OSError:
        return Answer()


@attack(f"at most {_MOST_GROWTH_MB:.0f} MB, others answered", CHAT, MEMORY, SIDECAR, cases=("read",), fresh=True)
@attack(f"at most {_MOST_GROWTH_MB:.0f} MB, others answered", CHAT, cases=("unread",), fresh=True)
async def pipelines_100_000_requests(scene: Scene) -> Seen:
    """All at once on one connection. The answers are read as they come, or not at all."""
    place = scene.watch.place
    requests = f"GET {place.health} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 1_000
    async with connection(place) as (reader, writer):
        reading = asyncio.create_task(_ended(reader)) if scene.case == "read" else None
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(scene.site.patience_s / 2):
                for _ in range(100):
                    writer.write(requests)
                    await writer.drain()
        await answers_health(place)
        if reading is not None:
            reading.cancel()
    grown, stall_s = scene.watch.grown_mb(), scene.watch.so_far()
    if grown is None:
        raise NotHere  # memory is what this is about
    stalled = stall_s > max(1.0, scene.site.stall_limit_s)
    return Seen(grown <= _MOST_GROWTH_MB and not stalled, f"{grown:.0f} MB more, held {stall_s * 1000:.0f} ms")


async def _drip(place: Place, start: bytes) -> bool:
    """Whether the other side has closed in time, or answered."""
    async with connection(place) as (reader, writer):
        writer.write(start)
        ended = asyncio.create_task(_ended(reader))
        for _ in range(int((_HEAD_S + _GRACE_S) / _DRIP_S)):
            done, _ = await asyncio.wait([ended], timeout=_DRIP_S)
            if done:
                return True
            writer.write(b"a")
        ended.cancel()
        return False


async def is_closed_when_idle(place: Place, first: bytes, limit_s: float) -> bool:
    """Whether the other side closes in time after `first`."""
    async with connection(place) as (reader, writer):
        writer.write(first)
        try:
            async with asyncio.timeout(limit_s + _GRACE_S):
                await _ended(reader)
        except TimeoutError:
            return False
        return True


async def _ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass
