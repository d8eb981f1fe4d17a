"""The MCP servers of an assistant: connected when the service starts, and again before a turn if one was away.

Importing this takes seconds: do it late.
"""

import logging
from collections.abc import Sequence

from agents.mcp import MCPServer, MCPServerManager

from everturn.errors import TransientError

log = logging.getLogger(__name__)


class ToolServers:
    """Connections to `servers`, on which the agents that have them can rely after `connect`."""

    def __init__(self, servers: Sequence[MCPServer]) -> None:
        self._manager = MCPServerManager(servers, connect_in_parallel=True)
        self._is_begun = False

    async def connect(self) -> None:
        """Connect what is not connected. Raises TransientError (kind `tools_unreachable`) if one cannot be reached."""
        if not self._is_begun:
            self._is_begun = True
            await self._manager.connect_all()
        elif self._manager.failed_servers:
            await self._manager.reconnect()
        if failed := self._manager.failed_servers:
            names = ", ".join(repr(server.name) for server in failed)
            log.warning("tools_unreachable", extra={"servers": names})
            raise TransientError(f"the MCP server {names} cannot be reached", kind="tools_unreachable")

    async def reconnect(self) -> None:
        """Connect all of them again: one has broken off."""
        await self._manager.reconnect(failed_only=False)

    async def close(self) -> None:
        await self._manager.cleanup_all()
