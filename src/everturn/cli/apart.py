"""`everturn chat` and `everturn memory`: one service in a process of its own, beside a sidecar."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI

from everturn.chat.app import create_app as create_chat_app
from everturn.cli.banner import address
from everturn.cli.listeners import WebServer, allow_many_connections, listen
from everturn.cli.process import Deadline, end_at_once, loop_factory, spare_collector, stop_signal
from everturn.memory.app import create_app as create_memory_app
from everturn.settings import Settings

log = logging.getLogger(__name__)

# Of the time for a graceful stop: so long a request may wait for its turn, so long it has to be answered; the rest is
# for the work behind them.
_SHARE_OF_WAITERS = 0.6
_SHARE_OF_REQUESTS = 0.8


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    create: Callable[[Settings], FastAPI]
    port: int
    port_setting: str
    release_waiters: Callable[[FastAPI], None] = lambda _app: None


def run_chat_service(settings: Settings) -> None:
    """Run the chat service until SIGTERM or Ctrl-C. Raises SettingError or StartError where it cannot start."""
    port = settings.chat_port
    chat = _Service(
        "chat service", create_chat_app, port, "EVERTURN_CHAT_PORT", lambda app: app.state.release_waiters()
    )
    _run(settings, chat)


def run_memory_service(settings: Settings) -> None:
    """Run the memory service until SIGTERM or Ctrl-C. Raises SettingError or StartError where it cannot start.

    Where no ports of a sidecar are set, they are the second service's of `everturn runtime`.
    """
    unset = {"dapr_http_port", "dapr_grpc_port"} - settings.model_fields_set
    settings = settings.model_copy(update={name: getattr(settings, name) + 1 for name in unset})
    _run(settings, _Service("memory service", create_memory_app, settings.memory_port, "EVERTURN_MEMORY_PORT"))


def _run(settings: Settings, service: _Service) -> None:
    allow_many_connections()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, service))


async def _serve(settings: Settings, service: _Service) -> None:
    stopping = stop_signal()
    deadline = Deadline(settings.shutdown_s)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, service.port, service.port_setting))
        app = service.create(settings)
        await stack.enter_async_context(app.router.lifespan_context(app))
        server = WebServer(app, listener)
        server.start()
        spare_collector()
        print(f"{service.name}: {address(settings.host, service.port)}. Ctrl-C stops it.", flush=True)
        await stopping.wait()
        log.info("stopping", extra={"limit_s": settings.shutdown_s})
        deadline.begin()
        loop = asyncio.get_running_loop()
        loop.call_later(settings.shutdown_s * _SHARE_OF_WAITERS, service.release_waiters, app)
        loop.call_later(settings.shutdown_s, end_at_once)
        await server.stop(deadline.left_s() * _SHARE_OF_REQUESTS)
    log.info("stopped")
