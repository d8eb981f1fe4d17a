"""What every long-running command shares: its loop, its sockets and web servers, the signal that ends it, and how."""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from everturn.cli.bounded_http import BoundedHttp, Connections, bounded_by
from everturn.errors import SettingError, StartError
from everturn.settings import Settings

T = TypeVar("T")

log = logging.getLogger(__name__)

_EXIT_AT_ONCE = 0
# Thresholds of the garbage collector's three generations.
_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _OLDER_COLLECTIONS = 20_000, 10, 10
# Seconds that a resumed workflow takes on a slow machine, and the longest time without the collector.
_RESUME_S = 0.0025
_MOST_RESUME_S = 40.0
BACKLOG = 2048
# Shares of the time for a graceful stop. Until the first, requests may wait for their turns; then they are answered
# with where to look.
_SHARE_OF_WAITERS = 0.6
# Until the second they have to be answered; the rest is for the work behind them.
_SHARE_OF_REQUESTS = 0.8
_MOST_OPEN_FILES = 65_536
# Of the open files, what is not for connections, at most; and how many listeners a process has, as a rule.
_SPARE_FILES, _LISTENERS = 1_024, 2


class GracefulStop:
    """SIGTERM and the first Ctrl-C set `asked`; the second Ctrl-C ends the process. It may take `limit_s` seconds."""

    def __init__(self, limit_s: float) -> None:
        self.asked = asyncio.Event()
        self._limit_s = limit_s
        self._ends_at: float | None = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGTERM, self.asked.set)

    def begin(self) -> None:
        """When the time is over the process ends, whatever is still at work."""
        log.info("stopping", extra={"limit_s": self._limit_s})
        loop = asyncio.get_running_loop()
        self._ends_at = loop.time() + self._limit_s
        loop.call_later(self._limit_s, force_exit)

    def left_s(self) -> float:
        """All of it, until it has begun."""
        if self._ends_at is None:
            return self._limit_s
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())

    def _interrupted(self) -> None:
        if self.asked.is_set():
            force_exit()
        self.asked.set()


def force_exit() -> None:
    """End without waiting for anything: what is acknowledged is on disk, and the next start resumes the rest."""
    log.warning("ended_at_once")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(_EXIT_AT_ONCE)


def run(command: Coroutine[Any, Any, T]) -> T:
    """The result of a long-running command, in a loop of its own."""
    allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(command)


def freeze_gc(*, resumed: int = 0) -> None:
    """What the start has made stays for good: let the garbage collector pass it over, and look at the rest less often.

    A collection stops the loop, and one of everything takes a tenth of a second here: also the first, which would
    free half a megabyte. What a turn leaves behind is freed without it, cycles aside
    (https://docs.python.org/3/library/gc.html#gc.freeze). While `resumed` workflows come back to their state, all that
    is made is needed: it would be looked through several times for nothing.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _OLDER_COLLECTIONS)
    if resumed:
        asyncio.get_running_loop().call_later(min(resumed * _RESUME_S, _MOST_RESUME_S), gc.enable)
    else:
        gc.enable()


def check_who_may_call(settings: Settings) -> None:
    """As `who_may_call`; its warning goes to stderr."""
    if warning := who_may_call(settings):
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def who_may_call(settings: Settings) -> str | None:
    """A warning if others than this machine's programs reach the services and nobody signs in; None if all is well.

    Raises SettingError if EVERTURN_AUTH does not say `none` explicitly.
    """
    if settings.auth != "none" or _is_loopback(settings.host):
        return None
    if "auth" not in settings.model_fields_set:
        raise SettingError(
            f"EVERTURN_HOST is {settings.host!r}, and anyone who reaches it could be any user: set EVERTURN_AUTH to "
            "header or jwt, or to none if only those reach it who may be"
        )
    return f"EVERTURN_AUTH is none and EVERTURN_HOST is {settings.host}: anyone who reaches it can be any user"


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        return True  # no address at all: `listen` says so
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; from now on nobody else can have the port. `setting` is the name of the port's setting.

    Raises StartError if the port is taken or not allowed, SettingError if `host` is no address of this machine.
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
        listener.listen(BACKLOG)
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


Refused = Callable[[str], None]


def refusals(registry: CollectorRegistry) -> Refused:
    """Counts in `registry` what listeners refuse, by the reason."""
    refused = Counter(
        "everturn_connections_refused",
        "Connections refused, by reason: full, slow, silent, unread, head, malformed.",
        ["reason"],
        registry=registry,
    )
    return lambda reason: refused.labels(reason).inc()


def grpc_connections(registry: CollectorRegistry, count: Callable[[], int]) -> None:
    """Shows in `registry` what `count` says when it is asked."""
    Gauge(
        "everturn_grpc_connections",
        "Open connections of the gRPC ports; gRPC closes those over its limit without counting them.",
        registry=registry,
    ).set_function(count)


def share_of_files(listeners: int) -> int:
    """How many connections each of `listeners` may have: they share the descriptors, and leave some for the rest."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_OPEN_FILES if files == resource.RLIM_INFINITY else files
    spare = min(_SPARE_FILES, files // 4)
    return max(1, (files - spare) // listeners)


def bounded(refused: Refused = lambda _: None, listeners: int = _LISTENERS) -> type[BoundedHttp]:
    """The protocol of one of `listeners` of this process; `refused` is called with what it refuses."""
    return bounded_by(Connections(share_of_files(listeners), refused))


def metrics_alone(registry: CollectorRegistry) -> ASGIApp:
    """`GET /metrics` of `registry`, and 404 for the rest."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    """One of several servers of a process, which handles the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves `app`, whose lifespan is already running, on `listener` until `stop`. `protocol` has its limits."""

    def __init__(self, app: ASGIApp, listener: socket.socket, protocol: type[BoundedHttp] | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=protocol or bounded(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="web-server")

    async def stop(self, limit_s: float) -> None:
        """Take no new requests, give the running ones up to `limit_s` seconds, cut off the rest."""
        # uvicorn hands it on to asyncio.wait_for, which takes fractions of a second.
        self._server.config.timeout_graceful_shutdown = limit_s  # type: ignore[assignment]
        self._server.should_exit = True
        await self._task


async def stop_servers(servers: Sequence[WebServer], stop: GracefulStop, release_waiters: Callable[[], None]) -> None:
    """Begin the graceful `stop`: answer what is under way, take no more.

    `release_waiters` answers requests that wait for turns.
    """
    stop.begin()
    asyncio.get_running_loop().call_later(stop.left_s() * _SHARE_OF_WAITERS, release_waiters)
    await asyncio.gather(*(server.stop(stop.left_s() * _SHARE_OF_REQUESTS) for server in servers))
    log.info("requests_ended")
