"""A TCP proxy on loopback between two real parties, whose way through a test can refuse, cut and hold."""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Self

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536


class FaultProxy:
    """`async with FaultProxy(upstream_port) as proxy:`, then connect to `proxy.port`. It begins open.

    Byte for byte what comes in on one side goes out on the other, until a method says otherwise.
    """

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def refuse(self) -> None:
        """Reset what is connected and refuse new connections, until `restore`."""
        self.stop_accepting()
        self.cut()

    def stop_accepting(self) -> None:
        """Refuse new connections, until `restore`; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset every connection that there is; new ones are taken."""
        for writer in list(self._writers):
            reset(writer)

    def hold(self) -> None:
        """Take connections and bytes and pass nothing on, until `restore`."""
        self._flowing.clear()

    async def restore(self) -> None:
        """Let everything through again, on the same port; what was held continues."""
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_accepting()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._on_connection, _HOST, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side went away, or the proxy is closed
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        up_reader, up_writer = await asyncio.open_connection(_HOST, self._upstream_port)
        self._writers.add(up_writer)
        pumps = [asyncio.create_task(self._pump(reader, up_writer)), asyncio.create_task(self._pump(up_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(up_writer)
            up_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST: to linger for zero seconds makes the kernel send it in place of FIN (socket(7))."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
