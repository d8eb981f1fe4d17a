"""`everturn serve chat` and `everturn serve memory`: one service in a process of its own, beside a sidecar."""

import contextlib
import logging
from collections.abc import Callable

from fastapi import FastAPI

from everturn.chat.app import ChatParts
from everturn.chat.app import app_over as chat_app_over
from everturn.cli.banner import address
from everturn.cli.process import (
    GracefulStop,
    WebServer,
    bounded,
    check_who_may_call,
    freeze_gc,
    listen,
    metrics_alone,
    refusals,
    run,
    stop_servers,
)
from everturn.dapr.sidecar import DaprSidecar
from everturn.memory.app import create_app as create_memory_app
from everturn.settings import Settings

log = logging.getLogger(__name__)

# The app, and what answers the requests that wait for a turn.
_Made = tuple[FastAPI, Callable[[], None]]


def run_chat_service(settings: Settings) -> None:
    """Run the chat service until SIGTERM or Ctrl-C. Raises SettingError or StartError if it cannot start."""

    def make() -> _Made:
        parts = ChatParts.create(settings, DaprSidecar(settings), None)
        return chat_app_over(settings, parts), parts.waiter.release

    run(_serve(settings, "chat", settings.chat_port, make))


def run_memory_service(settings: Settings) -> None:
    """Run the memory service until SIGTERM or Ctrl-C. Raises SettingError or StartError if it cannot start.

    If no ports of a sidecar are set, they are the second service's of `everturn runtime`.
    """
    unset = {"dapr_http_port", "dapr_grpc_port"} - settings.model_fields_set
    second = settings.model_copy(update={name: getattr(settings, name) + 1 for name in unset})
    run(_serve(second, "memory", second.memory_port, lambda: (create_memory_app(second), lambda: None)))


async def _serve(settings: Settings, name: str, port: int, make: Callable[[], _Made]) -> None:
    check_who_may_call(settings)
    stop = GracefulStop(settings.shutdown_s)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, port, f"EVERTURN_{name.upper()}_PORT"))
        app, release_waiters = make()  # in the loop: a sidecar's clients belong to it
        await stack.enter_async_context(app.router.lifespan_context(app))
        servers = []
        if settings.metrics_port is not None:
            for_metrics = stack.enter_context(listen(settings.host, settings.metrics_port, "EVERTURN_METRICS_PORT"))
            # What it refuses is not counted: the other listener has the counter.
            servers.append(WebServer(metrics_alone(app.state.registry), for_metrics))
        servers.append(WebServer(app, listener, bounded(refusals(app.state.registry))))
        freeze_gc()
        print(f"{name} service: {address(settings.host, port)}. Ctrl-C stops it.", flush=True)
        await stop.asked.wait()
        await stop_servers(servers, stop, release_waiters)
    log.info("stopped")
