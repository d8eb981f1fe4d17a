"""Dapr's own workflow API over gRPC, as older clients use it. What it means is tested over HTTP."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.proto.runtime.v1 import workflow_pb2 as pb
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub

from tests.unit.runtime.grpc.dapr_rig import HOST, PATIENCE_S, dapr_rig


@pytest.mark.parametrize("version", ["Alpha1", "Beta1"])
async def test_a_workflow_is_started_and_looked_at(tmp_path: Path, version: str) -> None:
    async with dapr_rig(tmp_path) as rig, grpc.aio.insecure_channel(f"{HOST}:{rig.grpc_port}") as channel:
        stub: Any = DaprStub(channel)
        start, get = getattr(stub, f"StartWorkflow{version}"), getattr(stub, f"GetWorkflow{version}")

        request = pb.StartWorkflowRequest(
            workflow_name="w",
            instance_id="one",
            workflow_component="dapr",
            options={"dapr.workflow.start_time": "2126-01-01T00:00:00Z"},
        )
        started = await start(request, timeout=PATIENCE_S)
        seen = await get(pb.GetWorkflowRequest(instance_id="one"), timeout=PATIENCE_S)

        assert started.instance_id == "one"
        assert seen.runtime_status == "PENDING"


async def test_what_does_not_exist_is_not_found(tmp_path: Path) -> None:
    async with dapr_rig(tmp_path) as rig, grpc.aio.insecure_channel(f"{HOST}:{rig.grpc_port}") as channel:
        stub: Any = DaprStub(channel)

        seen = await stub.GetWorkflowBeta1(pb.GetWorkflowRequest(instance_id="none"), timeout=PATIENCE_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.TerminateWorkflowBeta1(pb.TerminateWorkflowRequest(instance_id="none"), timeout=PATIENCE_S)

        assert seen == pb.GetWorkflowResponse(instance_id="none")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
