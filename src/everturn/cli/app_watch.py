"""What `everturn runtime` finds out about its app: that it listens, and that its workflow worker has connected.

As on Dapr, the sidecar is healthy and asks the app what it subscribes to once the app's port is open, and
"Workflow engine started" is written once its first worker is there.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from everturn.runtime.clock import Clock, SystemClock, sleep
from everturn.runtime.embedded import ServedApp

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# An app that takes longer is said to be missing, once.
PATIENCE_S = 15.0
# Between two looks at the port, until then (as daprd has it) and afterwards.
_LOOK_EVERY_S, _LOOK_LATER_EVERY_S = 0.05, 0.5
_CONNECT_LIMIT_S = 0.5

IsOpen = Callable[[int], Awaitable[bool]]


async def is_open(port: int) -> bool:
    """Whether somebody listens on `port` of this machine."""
    try:
        async with asyncio.timeout(_CONNECT_LIMIT_S):
            _, writer = await asyncio.open_connection(_HOST, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True


async def watch_port(app: ServedApp, port: int, *, clock: Clock | None = None, looks: IsOpen = is_open) -> None:
    """Return when the app listens on `port`; its sidecar is told so. Meanwhile warn once if that takes long."""
    clock = clock or SystemClock()
    patience_ends: float | None = clock.now() + PATIENCE_S
    while not await looks(port):
        if patience_ends is not None and clock.now() >= patience_ends:
            patience_ends = None
            advice = f"no program listens on port {port}: start {app.app_id!r} there, or give another --app-port"
            log.warning("app_does_not_listen", extra={"app_id": app.app_id, "port": port, "advice": advice})
        await sleep(clock, _LOOK_LATER_EVERY_S if patience_ends is None else _LOOK_EVERY_S)
    log.info("app_listens", extra={"app_id": app.app_id, "port": port})
    app.listens()


async def watch_worker(app: ServedApp, grpc_port: int, *, clock: Clock | None = None) -> None:
    """Write a line when the app's first workflow worker connects. Log once that none has, if that takes long: a warning
    if workflows wait for it, since an app need not have any."""
    clock = clock or SystemClock()

    async def say_missing() -> None:
        await sleep(clock, PATIENCE_S)
        level = logging.WARNING if app.worker.waiting else logging.INFO
        advice = f"workflows of {app.app_id!r} wait until its worker connects to gRPC port {grpc_port}"
        log.log(level, "workflow_worker_missing", extra={"app_id": app.app_id, "advice": advice})

    missing = asyncio.create_task(say_missing())
    try:
        await app.worker.has_connected.wait()
    finally:
        missing.cancel()
    print(f"Workflow engine started for {app.app_id}", flush=True)
