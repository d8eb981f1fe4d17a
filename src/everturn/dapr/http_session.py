"""aiohttp's sessions, as `http_transport` uses them. To import this loads aiohttp."""

import asyncio
import select
import sys
from weakref import WeakSet

# As a whole: if its loading was put off (`everturn.cli.lean_start`), the first use of a name loads it.
import aiohttp

# Less than the 5 s after which uvicorn closes an idle connection (`timeout_keep_alive`): a request on one that is being
# closed would be lost.
_KEEP_ALIVE_S = 4.0
# Of one header that comes back, in bytes.
_MAX_HEADER = 64 * 1024
# Nothing is added to a request that it did not have: what comes back is to be in the encoding that was asked for.
_NOT_ADDED = ("accept-encoding", "content-type", "user-agent")


def open_session(headers: dict[str, str] | None, socket: str | None, timeout_s: float | None) -> aiohttp.ClientSession:
    """A pool of connections, to the Unix `socket` if there is one; the rest is as `HttpTransport` says."""
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        if socket is None
        else aiohttp.UnixConnector(socket, limit=0, keepalive_timeout=_KEEP_ALIVE_S)
    )

    async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Until the answer begins. aiohttp has no limit for writing, and repeats a PUT after these two faults."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await handler(request)
                    except _LeftError:  # nothing was sent on it
                        continue
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise aiohttp.ClientConnectionError(str(error)) from error

    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        skip_auto_headers=_NOT_ADDED,
        timeout=aiohttp.ClientTimeout(sock_read=timeout_s),
        middlewares=(send_once,),
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
    )


class _LeftError(Exception):
    """The other side has closed the connection since its last answer."""


# The protocols of connections that have carried a request.
_used: WeakSet[object] = WeakSet()


class _Request(aiohttp.ClientRequest):
    """Is not sent on a connection that the other side has closed: aiohttp knows only of what its loop has read."""

    async def send(self, conn: "aiohttp.connector.Connection") -> aiohttp.ClientResponse:
        if conn.protocol is not None:
            if conn.protocol in _used and _has_input(conn):
                raise _LeftError
            _used.add(conn.protocol)
        return await super().send(conn)


def _has_input(conn: "aiohttp.connector.Connection") -> bool:
    """Whether something has come, which between two requests is the end."""
    if sys.platform == "win32" or conn.transport is None:
        return False
    poll = select.poll()
    poll.register(conn.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
