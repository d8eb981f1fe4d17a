"""A sidecar of Dapr 1.18 that locks itself up when its last worker dies: its service ends it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx2
import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from google.protobuf.wrappers_pb2 import StringValue
from tools.dapr.layout import HOST, free_ports

from everturn.dapr.sdk import protocol as pb
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.fleet import DaprFleet, Door, address, make_fleet

# A stream that nobody reads takes one item of this size, and perhaps a second; the next ones wait for their turn.
_INPUT = "x" * 2_000_000
_INSTANCES = [f"never read {number}" for number in range(6)]
_UNREAD = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
_ASK_S = 0.5
# The metric of daprd that counts them.
_SCHEDULED = "dapr_runtime_workflow_scheduling_latency_count"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[DaprFleet]:
    made = make_fleet("dapr", tmp_path, free_ports(), {}, {})
    assert isinstance(made, DaprFleet)
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        await made.stop()


async def test_a_sidecar_that_takes_no_worker_any_more_is_ended_and_started_again(fleet: DaprFleet) -> None:
    stuck = fleet.system.processes["chat-sidecar"]
    fleet.kill("chat")
    await die_with_turns_to_give_out(fleet)

    fleet.system.begin("chat")

    assert await asyncio.to_thread(stuck.wait, PATIENCE_S) == 0
    # Not before: a sidecar that ends can have a worker for a moment, and its service is ready with that.
    await asyncio.to_thread(fleet.system.wait_for, "chat")
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        assert (await Client(http, Door(fleet, "chat"), "after it").reply("hello"))["reply"]


async def die_with_turns_to_give_out(fleet: DaprFleet) -> None:
    """Be the only worker of the chat service's sidecar, and leave when turns wait to be given out."""
    ports = fleet.ports.chat
    await workers(ports.http, 0)
    async with grpc.aio.insecure_channel(f"{HOST}:{ports.grpc}", options=_UNREAD) as channel:
        stub = stubs.TaskHubSidecarServiceStub(channel)
        stream = stub.GetWorkItems(pb.GetWorkItemsRequest())
        await workers(ports.http, 1)
        starts = [asyncio.create_task(start(stub, instance)) for instance in _INSTANCES]
        await turns_to_give_out(ports.metrics, len(_INSTANCES))
        stream.cancel()
        for each in starts:
            each.cancel()
        await asyncio.gather(*starts, return_exceptions=True)


async def workers(http_port: int, count: int) -> None:
    """Return once the sidecar has so many."""
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        while True:
            told = (await http.get(f"{address(http_port)}/v1.0/metadata")).json()
            if told.get("workflows", {}).get("connectedWorkers", 0) == count:
                return
            await asyncio.sleep(_ASK_S)


async def start(stub: stubs.TaskHubSidecarServiceStub, instance: str) -> None:
    """Start a workflow that no worker knows; answered when its first turn is over."""
    request = pb.CreateInstanceRequest(instanceId=instance, name="unknown", input=StringValue(value=_INPUT))
    await stub.StartInstance(request)


async def turns_to_give_out(metrics_port: int, count: int) -> None:
    """Return once so many first turns are out, or wait to be."""
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        while True:
            lines = (await http.get(address(metrics_port))).text.splitlines()
            counts = [line.split()[-1] for line in lines if line.startswith(_SCHEDULED) and '"unknown"' in line]
            if sum(map(int, counts)) == count:
                return
            await asyncio.sleep(_ASK_S)
