"""The SDK's asyncio workflow client over a task hub in the same process: same calls, same errors, no socket."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from grpc.aio import AioRpcError, Metadata

from everturn.runtime.rpc_fault import RpcFault
from everturn.runtime.sdk import DaprWorkflowClient, client_over
from everturn.runtime.task_hub import TaskHub

Req = TypeVar("Req")
Res = TypeVar("Res")
Call = Callable[..., Awaitable[Res]]


def in_process_client(hub: TaskHub) -> DaprWorkflowClient:
    """A client whose calls go to `hub`. To be used in the loop that the hub runs in."""
    return client_over(_Stub(hub))


class _Stub:
    """What the client takes for its gRPC stub: methods by their names on the wire."""

    def __init__(self, hub: TaskHub) -> None:
        self.StartInstance = _unary(hub.start_instance)
        self.GetInstance = _unary(hub.get_instance)
        self.WaitForInstanceStart = _unary(hub.wait_for_instance_start)
        self.WaitForInstanceCompletion = _unary(hub.wait_for_instance_completion)
        self.RaiseEvent = _unary(hub.raise_event)
        self.TerminateInstance = _unary(hub.terminate_instance)
        self.SuspendInstance = _unary(hub.suspend_instance)
        self.ResumeInstance = _unary(hub.resume_instance)
        self.PurgeInstances = _unary(hub.purge_instances)
        self.ListInstanceIDs = _unary(hub.list_instance_ids)
        self.GetInstanceHistory = _unary(hub.get_instance_history)
        self.RerunWorkflowFromEvent = _unary(hub.rerun_workflow_from_event)


def _unary(method: Callable[[Req], Awaitable[Res]]) -> Call[Res]:
    async def call(request: Req, *, timeout: float | None = None, **_options: object) -> Res:
        try:
            if timeout is None:
                return await method(request)
            async with asyncio.timeout(timeout):
                return await method(request)
        except RpcFault as fault:
            raise _rpc_error(fault.code, fault.details) from fault
        except TimeoutError as error:
            raise _rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error

    return call


def _rpc_error(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details=details, debug_error_string=details)
