"""HTTP/2 as bytes, for what no gRPC client would send (RFC 9113, RFC 7541)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from tests.hostile.wire import Place, connection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
_CANCEL = (8).to_bytes(4)
_MOST_OF_A_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)


def field(name: bytes, value: bytes) -> bytes:
    """A header as a literal, which no table remembers."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size])
    size -= 127
    parts = bytearray([127])
    while size >= 128:
        parts.append(size % 128 | 128)
        size //= 128
    return bytes([*parts, size])


def fields_of(method: str, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The headers of a gRPC call of `method`."""
    always = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": method.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    return b"".join(field(name, value) for name, value in (*always.items(), *more))


def call_of(stream: int, fields: bytes, message: bytes | None = None) -> bytes:
    """A call's headers, and its one message; without one it is left open."""
    begun = frame(HEADERS, END_HEADERS, stream, fields)
    return (
        begun
        if message is None
        else begun + frame(DATA, END_STREAM, stream, b"\0" + len(message).to_bytes(4) + message)
    )


def cancelled(stream: int, fields: bytes) -> bytes:
    return call_of(stream, fields) + frame(RST_STREAM, 0, stream, _CANCEL)


def endless_fields(count: int, size: int) -> Iterable[bytes]:
    """A call whose headers go on for `count` frames of `size` bytes."""
    yield frame(HEADERS, 0, 1, fields_of("/x/y"))
    for number in range(count):
        yield frame(CONTINUATION, 0, 1, field(b"x-%d" % number, b"a" * (size - 64)))


@contextlib.asynccontextmanager
async def spoken(place: Place) -> AsyncIterator[tuple[asyncio.StreamWriter, "asyncio.Task[bytes]"]]:
    """A connection of HTTP/2 whose answers are read until it ends; the task has the first of them."""
    async with connection(place) as (reader, writer):
        writer.write(PREFACE)
        reading = asyncio.create_task(_read(reader))
        try:
            yield writer, reading
        finally:
            reading.cancel()


async def _read(reader: asyncio.StreamReader) -> bytes:
    first = bytearray()
    with contextlib.suppress(OSError):
        while read := await reader.read(65_536):
            if len(first) < _MOST_OF_A_FRAME:
                first += read
    return bytes(first)
