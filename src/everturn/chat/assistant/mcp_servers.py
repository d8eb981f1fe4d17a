"""The MCP servers of an assistant: connected when the service starts, and again before a turn if one was away.

Importing this takes seconds: do it late.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from agents.mcp import MCPServer, MCPServerManager

from everturn.errors import TransientError

log = logging.getLogger(__name__)


class ToolServers:
    """Connections to `servers`, on which the agents that have them can rely after `connect`."""

    def __init__(self, servers: Sequence[MCPServer]) -> None:
        self._connections = [_Connection(server) for server in servers]

    async def connect(self) -> None:
        """Connect what is not connected. Raises TransientError (kind `tools_unreachable`) if one cannot be reached."""
        are_there = await asyncio.gather(*(connection.make() for connection in self._connections))
        pairs = zip(self._connections, are_there, strict=True)
        if names := ", ".join(repr(connection.name) for connection, is_there in pairs if not is_there):
            log.warning("tools_unreachable", extra={"servers": names})
            raise TransientError(f"the MCP server {names} cannot be reached", kind="tools_unreachable")

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))


class _Connection:
    """That to one server, which all turns share. It is made again between their calls, never under one.

    One whose server did not list its tools counts as broken until it does.
    """

    def __init__(self, server: MCPServer) -> None:
        self.name = server.name
        # In parallel: a task of its own makes and ends the connection, as anyio demands.
        self._manager = MCPServerManager([server], connect_in_parallel=True)
        self._is_begun = self._is_broken = False
        self._calls = 0
        self._changing = asyncio.Lock()
        server.list_tools = self._counted(server.list_tools, is_list=True)  # type: ignore[method-assign]
        server.call_tool = self._counted(server.call_tool)  # type: ignore[method-assign]

    async def make(self) -> bool:
        """Make it if it is not there; whether it is there now. A broken one stays while others call over it."""
        async with self._changing:
            if not self._is_begun:
                self._is_begun = True
                await self._manager.connect_all()
            elif (self._is_broken or self._manager.failed_servers) and not self._calls:
                await self._manager.reconnect(failed_only=False)
                self._is_broken = False
        return not self._manager.failed_servers

    async def close(self) -> None:
        await self._manager.cleanup_all()

    def _counted(self, call: Callable[..., Awaitable[Any]], *, is_list: bool = False) -> Any:
        """`call`, which waits while the connection is made; one that lists the tools says whether it is broken."""

        @wraps(call)
        async def counted(*args: Any, **kwargs: Any) -> Any:
            async with self._changing:
                self._calls += 1
            try:
                answer = await call(*args, **kwargs)
            except Exception:
                self._is_broken |= is_list
                raise
            finally:
                self._calls -= 1
            self._is_broken &= not is_list
            return answer

        return counted
