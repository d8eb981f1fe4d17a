"""The way to another runtime, wherever that listens now."""

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

from everturn.dapr.wire import Request
from everturn.runtime.peers.folder import Peer
from everturn.runtime.peers.link import PeerTransport


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    writer.close()


async def test_requests_to_a_runtime_that_has_moved_share_one_new_way(tmp_path: Path) -> None:
    unclosed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unclosed.append(context))
    places = [str(tmp_path / "before.sock"), str(tmp_path / "after.sock")]
    async with contextlib.AsyncExitStack() as stack:
        for place in places:
            await stack.enter_async_context(await asyncio.start_unix_server(answer, place))
        transport = PeerTransport(lambda: Peer("orders", places[0], frozenset()), to_app=True)
        for _ in range(2):
            answers = await asyncio.gather(*[transport.send(Request("GET", "/")) for _ in range(3)])
            assert [response.status for response in answers] == [204] * 3
            places.reverse()
        await transport.close()
        gc.collect()

    assert not unclosed
