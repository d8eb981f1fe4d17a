"""Tools of a real MCP server, over stdio and over HTTP."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp
from agents.testing import ScriptedModel, assistant_message, function_call

from everturn.chat.assistant.agent import Assistant
from everturn.chat.calls import CallLog
from everturn.contracts.memory import default_memory
from everturn.errors import TransientError

SERVER = "tests.system.weather_server"
SCRIPT = [[function_call("weather", {"city": "Lahore"}, call_id="a")], [assistant_message("It is sunny.")]]
# For what hangs, not a measure.
PATIENCE_S = 30.0


def over_stdio() -> MCPServer:
    return MCPServerStdio(
        {"command": sys.executable, "args": ["-m", SERVER]}, client_session_timeout_seconds=PATIENCE_S
    )


@asynccontextmanager
async def over_http(port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", SERVER, str(port), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def assistant_with(server: MCPServer, script: list[Any]) -> Assistant:
    return Assistant(ScriptedModel(script), agent=Agent(name="a", instructions="Help.", mcp_servers=[server]))


async def replied(assistant: Assistant, log: CallLog) -> str:
    return await assistant.reply(default_memory("ann"), [], "hello", (), log)


async def replied_at_last(assistant: Assistant, log: CallLog) -> str:
    """The reply once the server is there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await replied(assistant, log)
            except TransientError as error:
                if error.kind != "tools_unreachable":
                    raise


async def test_a_tool_of_a_server_over_stdio_is_called_and_kept() -> None:
    log, assistant = CallLog(), assistant_with(over_stdio(), SCRIPT)

    reply = await replied(assistant, log)
    await assistant.close()

    assert reply == "It is sunny."
    assert [(call.name, call.answer) for call in log.calls if call.kind == "tool"] == [
        ("weather", {"type": "text", "text": "sunny in Lahore"})
    ]


async def test_a_turn_waits_for_a_server_over_http_that_is_away_and_again_if_it_breaks_off() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = MCPServerStreamableHttp({"url": f"http://127.0.0.1:{port}/mcp"})
    assistant = assistant_with(server, [*SCRIPT, *SCRIPT])

    with pytest.raises(TransientError, match="cannot be reached"):
        await replied(assistant, CallLog())
    async with over_http(port):
        first = await replied_at_last(assistant, CallLog())
    with pytest.raises(TransientError, match="does not list its tools"):
        await replied(assistant, CallLog())
    async with over_http(port):
        second = await replied_at_last(assistant, CallLog())
    await assistant.close()

    assert (first, second) == ("It is sunny.", "It is sunny.")


class Watched(MCPServerStdio):
    """A real server. Its connections are counted, its list fails so often, its tools wait for `release`."""

    def __init__(self, **given: Any) -> None:
        super().__init__({"command": sys.executable, "args": ["-m", SERVER]}, **given)
        self.connects = self.failures = 0
        self.is_called, self.release = asyncio.Event(), asyncio.Event()

    async def connect(self) -> None:
        self.connects += 1
        await super().connect()  # type: ignore[no-untyped-call]

    async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError("no list")
        return await super().list_tools(*args, **kwargs)

    async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        self.is_called.set()
        await self.release.wait()
        return await super().call_tool(*args, **kwargs)


async def test_only_the_server_that_broke_is_connected_again() -> None:
    broken, other = Watched(), Watched(tool_filter={"blocked_tool_names": ["weather"]})
    agent = Agent[Any](name="a", instructions="Help.", mcp_servers=[other, broken])
    assistant = Assistant(ScriptedModel([[assistant_message("hi")], [assistant_message("hi")]]), agent=agent)
    await replied(assistant, CallLog())

    broken.failures = 1
    with pytest.raises(TransientError, match="does not list its tools"):
        await replied(assistant, CallLog())
    await replied(assistant, CallLog())
    await assistant.close()

    assert (broken.connects, other.connects) == (2, 1)


async def test_a_server_is_not_connected_again_under_the_call_of_another_turn() -> None:
    server = Watched()
    assistant = assistant_with(server, [SCRIPT[0], [assistant_message("hi")], *SCRIPT[1:], [assistant_message("hi")]])
    calling = asyncio.create_task(replied(assistant, CallLog()))
    await server.is_called.wait()

    server.failures = 1
    with pytest.raises(TransientError, match="does not list its tools"):
        await replied(assistant, CallLog())
    meanwhile = await replied(assistant, CallLog())
    server.release.set()
    reply = await calling
    await assistant.close()

    assert (meanwhile, reply, server.connects) == ("hi", "It is sunny.", 1)
