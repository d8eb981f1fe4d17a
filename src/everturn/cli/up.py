"""`everturn up`: the runtime and both services in one process and one loop. The composition root of that way to run."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI

from everturn.chat.app import create_app as create_chat_app
from everturn.chat.turn import CHAT_WORKFLOW
from everturn.cli.banner import print_banner, print_model_warning, print_slow_start
from everturn.cli.faults import add_fault_routes
from everturn.cli.listeners import WebServer, allow_many_connections, listen
from everturn.cli.process import Deadline, end_at_once, loop_factory, spare_collector, stop_signal
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.errors import TransientError
from everturn.memory.app import create_app as create_memory_app
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.settings import Settings
from everturn.sidecar.asgi_transport import AsgiTransport
from everturn.sidecar.wire import Request, Response, Transport
from everturn.sidecar.workflows import Sidecar

if TYPE_CHECKING:
    from agents import Model

log = logging.getLogger(__name__)

# A start that takes longer says what it is doing.
_SLOW_START_S = 2.0
# Of the time for a graceful stop: so long requests may wait for their turns, then they are told where to look;
_SHARE_OF_WAITERS = 0.6
# so long they have to be answered; the rest is for the work behind them.
_SHARE_OF_REQUESTS = 0.8


@dataclass(frozen=True, slots=True)
class UpOptions:
    """`faults` opens the switches for faults. A model, where one is given, is used and not that of the settings.

    `create_chat`: what makes the chat service's app.
    """

    faults: bool = False
    chat_model: "Model | None" = None
    summary_model: "Model | None" = None
    create_chat: "Callable[[Settings, Sidecar, Model | None], FastAPI]" = create_chat_app


@dataclass(frozen=True, slots=True)
class _Running:
    """What has been started. `release_waiters` lets the requests go that wait for a turn."""

    runtime: EmbeddedRuntime
    servers: Sequence[WebServer]
    release_waiters: Callable[[], None]


def run_up(settings: Settings, options: UpOptions) -> None:
    """Run until SIGTERM or Ctrl-C, then stop gracefully; a second Ctrl-C ends the process at once.

    Raises SettingError or StartError where it cannot start.
    """
    allow_many_connections()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_up(settings, options))


async def _up(settings: Settings, options: UpOptions) -> None:
    stopping = stop_signal()
    loop = asyncio.get_running_loop()
    slow = loop.call_later(_SLOW_START_S, print_slow_start, settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(slow.cancel)
        deadline = Deadline(settings.shutdown_s)
        running = await _start(settings, options, stack, deadline)
        slow.cancel()
        spare_collector(resumed=running.runtime.resumed)
        print_banner(settings, resumed=running.runtime.resumed_of(CHAT_WORKFLOW))
        warning = asyncio.create_task(print_model_warning(settings))
        await stopping.wait()
        log.info("stopping", extra={"limit_s": settings.shutdown_s})
        warning.cancel()
        deadline.begin()
        loop.call_later(settings.shutdown_s * _SHARE_OF_WAITERS, running.release_waiters)
        loop.call_later(settings.shutdown_s, end_at_once)
        await asyncio.gather(*(server.stop(deadline.left_s() * _SHARE_OF_REQUESTS) for server in running.servers))
        log.info("requests_ended")
        await running.runtime.stop(deadline.left_s())  # before the services: what they are doing may still finish
    log.info("stopped")


async def _start(
    settings: Settings, options: UpOptions, stack: contextlib.AsyncExitStack, deadline: Deadline
) -> _Running:
    """Everything running; `stack` ends it in the reverse order."""
    listeners = [
        stack.enter_context(listen(settings.host, settings.memory_port, "EVERTURN_MEMORY_PORT")),
        stack.enter_context(listen(settings.host, settings.chat_port, "EVERTURN_CHAT_PORT")),
    ]
    runtime = await EmbeddedRuntime.open(settings.data_dir, options=_runtime_options(settings))
    stack.push_async_callback(lambda: runtime.stop(deadline.left_s()))
    memory_channel, chat_channel = _AppChannel(), _AppChannel()
    memory = create_memory_app(settings, runtime.add_app(MEMORY_APP_ID, memory_channel), options.summary_model)
    chat = options.create_chat(settings, runtime.add_app(CHAT_APP_ID, chat_channel), options.chat_model)
    if options.faults:
        add_fault_routes(memory.router, runtime)
    for app, channel in ((memory, memory_channel), (chat, chat_channel)):
        await stack.enter_async_context(_lifespan(app))
        channel.connect(app)
    await runtime.start()
    chat.state.metrics.turns_resumed(runtime.resumed_of(CHAT_WORKFLOW))
    servers = [WebServer(app, listener) for app, listener in zip((memory, chat), listeners, strict=True)]
    for server in servers:
        server.start()
    return _Running(runtime, servers, chat.state.release_waiters)


def _runtime_options(settings: Settings) -> RuntimeOptions:
    token = settings.app_api_token
    return RuntimeOptions(app_api_token=token.get_secret_value() if token else None)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.router.lifespan_context(app):
        yield


class _AppChannel(Transport):
    """The runtime's way to an app that is made after it: an app needs its sidecar, a sidecar its app."""

    def __init__(self) -> None:
        self._transport: Transport | None = None

    def connect(self, app: FastAPI) -> None:
        self._transport = AsgiTransport(app)

    async def send(self, request: Request) -> Response:
        if self._transport is None:
            raise TransientError("the app has not started yet", kind="unreachable")
        return await self._transport.send(request)

    async def close(self) -> None:
        """Nothing to close: the app belongs to this process."""
