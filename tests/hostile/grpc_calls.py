"""The gRPC port of a sidecar: connections, calls, headers, messages."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from dataclasses import replace

import grpc

from tests.hostile.attack import SIDECAR, Scene, Seen, Size, attack
from tests.hostile.connections import answers_health, is_closed_when_idle
from tests.hostile.http2 import (
    DATA,
    PING,
    PREFACE,
    SETTINGS,
    call_of,
    cancelled,
    endless_fields,
    fields_of,
    frame,
    spoken,
)
from tests.hostile.stages import FEW_FILES, NotHere, Stage
from tests.hostile.wire import Place, connection

_TOKEN_SIDECAR = (Stage.TOKENS, "sidecar")
_SERVICE = "/dapr.proto.runtime.v1.Dapr"
_WORK = "/TaskHubSidecarService/GetWorkItems"
_MIB = 1_048_576
_MOST_GROWTH_MB = 64.0
# Headers are thrown away as they come, but gRPC reads on: more of them take no more.
_MOST_HEADERS_MB = 160.0
# Of all connections together (8,000 calls), at 30 kB each.
_MOST_CALLS_MB = 400.0
_FRAME = 16_000
_PACE_S = 0.5
_HEAD_S = 20.0


def _grpc(scene: Scene) -> Place:
    port = scene.site.sidecar.grpc_port
    if port is None:
        raise NotHere
    return replace(scene.site.sidecar, port=port)


async def _ask(
    place: Place, method: str, message: bytes = b"", compression: grpc.Compression | None = None
) -> grpc.StatusCode:
    """What an honest client gets, on a connection of its own."""
    metadata = () if place.token is None else (("dapr-api-token", place.token),)
    limits = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(place.authority, options=limits) as channel:
        try:
            await channel.unary_unary(method, bytes, bytes)(
                message, metadata=metadata, timeout=10, compression=compression
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _cost(scene: Scene, most_mb: float, what: str, *, refused: bool = True) -> Seen:
    grown, stall_s = scene.watch.grown_mb(), scene.watch.so_far()
    if grown is None:
        raise NotHere
    stalled = stall_s > max(1.0, scene.site.stall_limit_s)
    return Seen(
        refused and grown <= most_mb and not stalled, f"{what}, {grown:.0f} MB more, held {stall_s * 1000:.0f} ms"
    )


@attack("answered", _TOKEN_SIDECAR)
async def honest_grpc_call_is_answered(scene: Scene) -> Seen:
    code = await _ask(_grpc(scene), f"{_SERVICE}/GetMetadata")
    return Seen(code is grpc.StatusCode.OK, code.name)


@attack("HTTP answers", (Stage.FEW_FILES_SIDECAR, "sidecar"), cases=("silent", "spoken"))
async def takes_every_descriptor_with_grpc_connections(scene: Scene) -> Seen:
    """More connections than the process may have descriptors."""
    place = _grpc(scene)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(FEW_FILES + 64):
            with contextlib.suppress(OSError):
                _, writer = await stack.enter_async_context(connection(place))
                if scene.case == "spoken":
                    writer.write(PREFACE)
        during = await answers_health(scene.site.sidecar)
    after = await _until_answered(place)
    return Seen(during.status == 204 and after, f"HTTP {during}, gRPC afterwards {'answers' if after else 'does not'}")


async def _until_answered(place: Place) -> bool:
    for _ in range(10):
        if await _ask(place, f"{_SERVICE}/GetMetadata") is grpc.StatusCode.OK:
            return True
    return False


@attack("1,000 open at most", SIDECAR, size=Size.LARGE, fresh=True)
async def opens_4_000_grpc_connections(scene: Scene) -> Seen:
    place = _grpc(scene)
    async with contextlib.AsyncExitStack() as stack:
        tasks = [(await stack.enter_async_context(spoken(place)))[1] for _ in range(4_000)]
        await answers_health(scene.site.sidecar)
        is_open = sum(not task.done() for task in tasks)
    return _cost(scene, _MOST_GROWTH_MB, f"{is_open} open", refused=is_open <= 1_000)


@attack(f"closed within {_HEAD_S:.0f} s", (Stage.PATIENT_SIDECAR, "sidecar"), size=Size.SLOW, beside=True)
async def says_nothing_to_grpc(scene: Scene) -> Seen:
    place = _grpc(scene)
    closed = await asyncio.gather(*(is_closed_when_idle(place, b"", _HEAD_S) for _ in range(20)))
    return Seen(all(closed), f"{sum(closed)} of {len(closed)} closed")


@attack("closed", SIDECAR, cases=("no HTTP", "HTTP/1.1", "a broken frame", "a header of no table"))
async def sends_what_is_no_grpc(scene: Scene) -> Seen:
    data = {
        "no HTTP": b"\x16\x03\x01 hello\r\n\r\n" * 10,
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a broken frame": PREFACE + b"\xff" * 9,
        "a header of no table": PREFACE + frame(1, 4, 1, b"\xff\xff\xff\xff\x0f"),
    }[scene.case]
    closed = await is_closed_when_idle(_grpc(scene), data, scene.site.patience_s)
    code = await _ask(_grpc(scene), f"{_SERVICE}/GetMetadata")
    return Seen(closed and code is grpc.StatusCode.OK, f"{'closed' if closed else 'open'}, another call {code.name}")


async def _send(scene: Scene, parts: Iterable[bytes]) -> str:
    """How much of `parts` was taken until the other side closed, or the time was over."""
    taken = 0
    async with spoken(_grpc(scene)) as (writer, reading):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(scene.site.patience_s / 2):
                for part in parts:
                    if reading.done():
                        break
                    writer.write(part)
                    await writer.drain()
                    taken += len(part)
        await answers_health(scene.site.sidecar)
    return f"{taken / 1e6:.1f} MB taken"


@attack(f"at most {_MOST_HEADERS_MB:.0f} MB, others answered", SIDECAR, fresh=True)
async def sends_grpc_headers_of_200_mib(scene: Scene) -> Seen:
    return _cost(scene, _MOST_HEADERS_MB, await _send(scene, endless_fields(_frames(scene), _FRAME)))


@attack(f"at most {_MOST_GROWTH_MB:.0f} MB, others answered", SIDECAR, fresh=True)
async def sends_a_grpc_message_of_200_mib(scene: Scene) -> Seen:
    """Its length says so; flow control is not kept."""
    begun = call_of(1, fields_of(f"{_SERVICE}/SaveState")) + frame(DATA, 0, 1, b"\0" + (200 * _MIB).to_bytes(4))
    message = itertools.repeat(frame(DATA, 0, 1, bytes(_FRAME)), _frames(scene))
    return _cost(scene, _MOST_GROWTH_MB, await _send(scene, itertools.chain([begun], message)))


def _frames(scene: Scene) -> int:
    return (200 if scene.site.large else 32) * _MIB // _FRAME


@attack(f"at most {_MOST_GROWTH_MB:.0f} MB, refused", SIDECAR, cases=("plain", "packed"), fresh=True)
async def sends_a_message_of_64_mib(scene: Scene) -> Seen:
    """By a client of gRPC: as it is, or as zeros that gzip packs into 64 KiB."""
    packed = grpc.Compression.Gzip if scene.case == "packed" else None
    code = await _ask(_grpc(scene), f"{_SERVICE}/SaveState", bytes(64 * _MIB), packed)
    return _cost(scene, _MOST_GROWTH_MB, code.name, refused=code is grpc.StatusCode.RESOURCE_EXHAUSTED)


@attack(
    f"at most {_MOST_GROWTH_MB:.0f} MB, others answered",
    SIDECAR,
    cases=("calls", "pings", "settings"),
    size=Size.SLOW,
    fresh=True,
)
async def sends_100_000_grpc_frames(scene: Scene) -> Seen:
    """Calls that are cancelled at once, or what has to be answered."""
    count, fields = 100_000, fields_of(f"{_SERVICE}/GetMetadata")
    parts = {
        "calls": (cancelled(1 + 2 * number, fields) for number in range(count)),
        "pings": (frame(PING, 0, 0, number.to_bytes(8)) for number in range(count)),
        "settings": (frame(SETTINGS, 0, 0) for _ in range(count)),
    }[scene.case]
    return _cost(scene, _MOST_GROWTH_MB, await _send(scene, parts))


@attack(f"at most {_MOST_CALLS_MB:.0f} MB", SIDECAR, size=Size.LARGE, fresh=True)
async def keeps_40_000_grpc_calls_open(scene: Scene) -> Seen:
    """As workers, 4,000 on each of ten connections, in steps that the server can follow."""
    place, fields = _grpc(scene), fields_of(_WORK)
    async with contextlib.AsyncExitStack() as stack:
        writers = [(await stack.enter_async_context(spoken(place)))[0] for _ in range(10)]
        for first in range(0, 4_000, 50):
            for writer in writers:
                writer.write(b"".join(call_of(1 + 2 * number, fields, b"") for number in range(first, first + 50)))
                await writer.drain()
            await asyncio.sleep(_PACE_S)
        await answers_health(scene.site.sidecar)
    return _cost(scene, _MOST_CALLS_MB, "all sent")


@attack("UNAUTHENTICATED before a message", _TOKEN_SIDECAR)
async def opens_a_grpc_call_without_the_token(scene: Scene) -> Seen:
    async with grpc.aio.insecure_channel(_grpc(scene).authority) as channel:
        call = channel.stream_unary(f"{_SERVICE}/SaveState", bytes, bytes)(None)
        async with asyncio.timeout(scene.site.patience_s):
            code = await call.code()
    return Seen(code is grpc.StatusCode.UNAUTHENTICATED, code.name)
