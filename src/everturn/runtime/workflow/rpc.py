"""The calls of a task hub, as Dapr's `TaskHubSidecarService` has them: what answers them, and how they fail."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from everturn.dapr.sdk import protocol as pb

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True, slots=True, eq=False)
class Rpc(Generic[Req, Res]):
    """A call: its name on the wire, the method of `TaskHub` that answers it, and the types of its messages."""

    name: str
    method: str
    request: type[Req]
    response: type[Res]


START = Rpc("StartInstance", "start_instance", pb.CreateInstanceRequest, pb.CreateInstanceResponse)
GET = Rpc("GetInstance", "get_instance", pb.GetInstanceRequest, pb.GetInstanceResponse)
WAIT_FOR_START = Rpc("WaitForInstanceStart", "wait_for_instance_start", pb.GetInstanceRequest, pb.GetInstanceResponse)
WAIT_FOR_COMPLETION = Rpc(
    "WaitForInstanceCompletion", "wait_for_instance_completion", pb.GetInstanceRequest, pb.GetInstanceResponse
)
RAISE_EVENT = Rpc("RaiseEvent", "raise_event", pb.RaiseEventRequest, pb.RaiseEventResponse)
TERMINATE = Rpc("TerminateInstance", "terminate_instance", pb.TerminateRequest, pb.TerminateResponse)
SUSPEND = Rpc("SuspendInstance", "suspend_instance", pb.SuspendRequest, pb.SuspendResponse)
RESUME = Rpc("ResumeInstance", "resume_instance", pb.ResumeRequest, pb.ResumeResponse)
PURGE = Rpc("PurgeInstances", "purge_instances", pb.PurgeInstancesRequest, pb.PurgeInstancesResponse)
LIST_IDS = Rpc("ListInstanceIDs", "list_instance_ids", pb.ListInstanceIDsRequest, pb.ListInstanceIDsResponse)
GET_HISTORY = Rpc(
    "GetInstanceHistory", "get_instance_history", pb.GetInstanceHistoryRequest, pb.GetInstanceHistoryResponse
)
RERUN = Rpc(
    "RerunWorkflowFromEvent",
    "rerun_workflow_from_event",
    pb.RerunWorkflowFromEventRequest,
    pb.RerunWorkflowFromEventResponse,
)
RPCS: tuple[Rpc[Any, Any], ...] = (
    *(START, GET, WAIT_FOR_START, WAIT_FOR_COMPLETION, RAISE_EVENT, TERMINATE),
    *(SUSPEND, RESUME, PURGE, LIST_IDS, GET_HISTORY, RERUN),
)


class Hub(Protocol):
    """The workflows of one app: here, or wherever their runtime is."""

    async def call(self, rpc: Rpc[Req, Res], request: Req) -> Res:
        """The answer, once what it says is on disk. Raises RpcFault."""
        ...


class RpcFault(Exception):
    """What a failed call answers. Clients of the SDK look for some of Dapr's phrases in `details`."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


NO_SUCH_INSTANCE = "no such instance exists"


def unknown(details: str) -> RpcFault:
    """What daprd answers for most errors of its workflow engine."""
    return RpcFault(grpc.StatusCode.UNKNOWN, details)


def not_found(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.NOT_FOUND, details)


def invalid_argument(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.INVALID_ARGUMENT, details)


def unavailable(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.UNAVAILABLE, details)
