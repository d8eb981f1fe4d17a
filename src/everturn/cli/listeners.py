"""The sockets of `everturn up` and the two web servers on them, in the loop of the process."""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from everturn.errors import SettingError, StartError

_BACKLOG = 2048
_MOST_OPEN_FILES = 65_536


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; from here on nobody else can have the port. `setting` is the name of the port's setting.

    Raises StartError where the port is taken or not allowed, SettingError where `host` is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise SettingError(f"EVERTURN_HOST: {host!r} is no address that can be listened on") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(error, host, port, setting) from error
    listener.setblocking(False)
    return listener


def allow_many_connections() -> None:
    """Raise the limit of open files as far as this process may: each connection is one, and many systems give 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    with contextlib.suppress(OSError, ValueError):  # not allowed: then the limit stays what it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refusal(error: OSError, host: str, port: int, setting: str) -> StartError | SettingError:
    match error.errno:
        case errno.EADDRINUSE:
            return StartError(
                f"port {port} is taken: stop the program that listens on it, or set {setting} to another port"
            )
        case errno.EACCES:
            return StartError(f"port {port} is not allowed for this user: set {setting} to a port above 1023")
        case errno.EADDRNOTAVAIL:
            return SettingError(f"EVERTURN_HOST: {host!r} is no address of this machine")
        case _:
            return StartError(f"cannot listen on {host!r}, port {port}: {error.strerror}")


class _Server(uvicorn.Server):
    """One of several servers of a process, which handles the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(slots=True)
class WebServer:
    """Serves `app` on `listener`, whose lifespan is already running, until `stop`."""

    app: ASGIApp
    listener: socket.socket
    _server: uvicorn.Server | None = None
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        config = uvicorn.Config(
            self.app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self.listener]), name="web-server")

    async def stop(self, limit_s: float) -> None:
        """Take no new requests, give the running ones up to `limit_s` seconds, cut off the rest."""
        if self._server is None or self._task is None:
            self.listener.close()
            return
        # uvicorn hands it on to asyncio.wait_for, which takes fractions of a second.
        self._server.config.timeout_graceful_shutdown = limit_s  # type: ignore[assignment]
        self._server.should_exit = True
        await self._task
