"""The same work with the SDK's own threaded worker and client, over gRPC to the same engine: for the ratio."""

import asyncio
import tempfile
from pathlib import Path

import uvloop
from dapr.ext.workflow.aio import DaprWorkflowClient

from benchmarks import engine
from benchmarks.report import Figure, median
from everturn.dapr.sdk.loggers import tame_sdk_loggers
from everturn.dapr.sdk.worker_thread import close_client
from everturn.runtime.clock import SystemClock
from everturn.runtime.database.database import Database
from everturn.runtime.grpc.remote_worker import RemoteWorker
from everturn.runtime.grpc.server import GrpcServer
from everturn.runtime.grpc.task_hub import task_hub_handlers
from everturn.runtime.workflow.engine import WorkflowEngine

_HOST = "127.0.0.1"
_WARM_UP = 50
_ALONE = 100
_AT_ONCE = 1_000


def run() -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, tempfile.TemporaryDirectory() as folder:
        return runner.run(_measure(Path(folder) / "engine.db"))


async def _measure(path: Path) -> list[Figure]:
    database = await Database.open(path)
    hosted = WorkflowEngine(database)
    await hosted.start()
    remote = RemoteWorker(SystemClock())
    hosted.register("bench", remote)
    handlers = task_hub_handlers(hosted.task_hub("bench"), remote, on_connect=lambda: hosted.wake("bench"))
    server = GrpcServer([handlers])
    port = await server.start(_HOST, 0)
    worker = engine.worker(_HOST, str(port))
    client = DaprWorkflowClient(host=_HOST, port=str(port))
    tame_sdk_loggers()
    await asyncio.to_thread(worker.start)
    await engine.at_once(client, database, 16, _WARM_UP)
    alone = [await engine.one(client) for _ in range(_ALONE)]
    burst = await engine.at_once(client, database, 64, _AT_ONCE)
    await asyncio.to_thread(worker.shutdown)
    await close_client(client)
    await server.stop(1)
    await hosted.stop(5)
    await database.close()
    return [
        Figure("engine", "SDK's worker over gRPC: one at a time, p50", median(alone), "ms"),
        Figure("engine", "SDK's worker over gRPC: 64 at once", burst.per_second, "turns/s"),
        Figure("engine", "SDK's worker over gRPC: CPU a turn", burst.cpu_ms, "ms"),
    ]
