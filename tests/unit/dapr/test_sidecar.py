"""The real sidecar's side, over a real gRPC server that speaks the SDK's protocol."""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from dapr.conf import settings as sdk_settings
from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from everturn.dapr.sdk import protocol as pb
from everturn.dapr.sdk.loggers import tame_sdk_loggers
from everturn.dapr.sdk.worker_thread import WorkerThread
from everturn.dapr.sidecar import DaprSidecar
from everturn.settings import Settings

PATIENCE_S = 30
# The metadata of a sidecar that could run workflows, and has no worker although one has connected.
STUCK = b'{"actorRuntime": {"hostReady": true}}'


@dataclass
class TaskHub(stubs.TaskHubSidecarServiceServicer):  # type: ignore[misc]
    """Gives out what a test puts in, and keeps what comes back."""

    items: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    results: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    connected: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    tokens: list[str | bytes] = field(default_factory=list)

    def Hello(self, request: Any, context: Any) -> Empty:  # noqa: ARG002, N802 - the RPC's own
        return Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002, N802 - the RPC's own
        self.tokens += [value for name, value in context.invocation_metadata() if name == "dapr-api-token"]
        self.connected.set()
        context.add_callback(lambda: self.items.put(None))
        while (item := self.items.get()) is not None:
            yield item
        self.left.set()

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the RPC's own
        self.results.put(request)
        return pb.CompleteTaskResponse()

    def activity(self, name: str, argument: str) -> None:
        request = pb.ActivityRequest(name=name, taskId=1, input=StringValue(value=argument))
        request.workflowInstance.instanceId = "i"
        self.items.put(pb.WorkItem(activityRequest=request))


@dataclass(frozen=True)
class Hub:
    task_hub: TaskHub
    port: int


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    task_hub = TaskHub()
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        stubs.add_TaskHubSidecarServiceServicer_to_server(task_hub, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Hub(task_hub, port)
        task_hub.items.put(None)
        server.stop(None)


@pytest.fixture(autouse=True)
def sdk_settings_as_before() -> Iterator[None]:
    before = dict(vars(sdk_settings))
    yield
    vars(sdk_settings).clear()
    vars(sdk_settings).update(before)


def settings(port: int, **more: Any) -> Settings:
    return Settings(dapr_grpc_port=port, dapr_http_port=port, **more)


async def result_of(hub: Hub) -> Any:
    return await asyncio.to_thread(hub.task_hub.results.get, timeout=PATIENCE_S)


async def outcome_of(hub: Hub, activity: Callable[..., Any], argument: str) -> Any:
    """What the sidecar hears of an activity of a service."""
    sidecar = DaprSidecar(settings(hub.port))
    worker = WorkflowRuntime()
    worker.register_activity(activity, name="work")
    await sidecar.start(worker)
    hub.task_hub.activity("work", argument)
    outcome = await result_of(hub)
    await sidecar.stop()
    return outcome


async def test_a_coroutine_activity_runs_in_the_services_loop(hub: Hub) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def greet(_: WorkflowActivityContext, name: str) -> str:
        loops.append(asyncio.get_running_loop())
        return f"hello {name}"

    outcome = await outcome_of(hub, greet, '"junaid"')

    assert outcome.result.value == '"hello junaid"'
    assert loops == [asyncio.get_running_loop()]


async def test_a_plain_activity_runs_outside_the_services_loop(hub: Hub) -> None:
    threads: list[int] = []

    def count(_: WorkflowActivityContext, text: str) -> int:
        threads.append(threading.get_ident())
        return len(text)

    outcome = await outcome_of(hub, count, '"abc"')

    assert outcome.result.value == "3"
    assert threads != [threading.get_ident()]


async def test_the_failure_of_a_coroutine_activity_is_its_result(hub: Hub) -> None:
    async def refuse(_: WorkflowActivityContext, __: str) -> str:
        raise ValueError("refused")

    outcome = await outcome_of(hub, refuse, '""')

    assert outcome.failureDetails.errorType == "ValueError"


async def test_the_worker_shows_the_sidecar_its_token(hub: Hub) -> None:
    sidecar = DaprSidecar(settings(hub.port, dapr_api_token="secret"))

    await sidecar.start(WorkflowRuntime())
    await asyncio.to_thread(hub.task_hub.connected.wait, PATIENCE_S)
    await sidecar.stop()

    assert set(hub.task_hub.tokens) == {"secret"}


async def test_a_worker_leaves_the_stream_it_has_and_opens_another(hub: Hub) -> None:
    worker = WorkerThread(WorkflowRuntime(host="127.0.0.1", port=str(hub.port)))
    worker.start()
    await asyncio.to_thread(hub.task_hub.connected.wait, PATIENCE_S)
    hub.task_hub.activity("unknown", '""')
    await result_of(hub)  # the hub knows of the stream before the worker does
    hub.task_hub.connected.clear()

    worker.stream.cancel()

    assert await asyncio.to_thread(hub.task_hub.left.wait, PATIENCE_S)
    assert await asyncio.to_thread(hub.task_hub.connected.wait, PATIENCE_S)
    await worker.stop()


async def test_a_stuck_sidecar_is_asked_to_end_and_then_left(hub: Hub) -> None:
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/v1.0/shutdown" in head:
                    asked.set()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(STUCK), STUCK))

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        http_port = server.sockets[0].getsockname()[1]
        sidecar = DaprSidecar(Settings(dapr_grpc_port=hub.port, dapr_http_port=http_port))
        await sidecar.start(WorkflowRuntime())
        await asyncio.wait_for(asked.wait(), 2 * PATIENCE_S)
        has_left_before = hub.task_hub.left.is_set()

        assert await asyncio.to_thread(hub.task_hub.left.wait, PATIENCE_S)
        assert not has_left_before
        await sidecar.stop()
        await sidecar.transport.close()


def test_a_worker_without_a_stream_has_none_to_leave(unused_tcp_port: int) -> None:
    worker = WorkerThread(WorkflowRuntime(host="127.0.0.1", port=str(unused_tcp_port)))

    assert not worker.stream.cancel()


async def test_a_service_starts_and_stops_without_its_sidecar(unused_tcp_port: int) -> None:
    sidecar = DaprSidecar(settings(unused_tcp_port))

    await sidecar.start(WorkflowRuntime())
    await sidecar.stop()

    await sidecar.transport.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "everturn-worker-start"]


def test_the_sdks_loggers_print_nothing_by_themselves() -> None:
    WorkflowRuntime()

    tame_sdk_loggers()

    for name in ("WorkflowRuntime", "durabletask-worker"):
        handlers = logging.getLogger(name).handlers
        assert all(isinstance(handler, logging.NullHandler) for handler in handlers)
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
