"""The task hub of an app: the client side of Dapr's `TaskHubSidecarService`, and a stub of it for the SDK's client.

What each call answers and how it fails is daprd 1.18's (dapr-wire); the in-process client and a gRPC server are thin
shells around `TaskHub.call`.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import grpc
from grpc.aio import AioRpcError, Metadata

from everturn.dapr.sdk import protocol as pb
from everturn.errors import ConflictError, TransientError
from everturn.runtime.workflow import rpc
from everturn.runtime.workflow.core.fork import ForkError, fork_history
from everturn.runtime.workflow.core.state import (
    TERMINAL,
    StartInstance,
    Status,
    event_at,
    instance_of,
    optional,
    seconds_of,
    timestamp_of,
)
from everturn.runtime.workflow.instances import Condition, Instance
from everturn.runtime.workflow.rpc import NO_SUCH_INSTANCE, RPCS, Hub, Req, Res, Rpc, RpcFault
from everturn.runtime.workflow.scheduler import Scheduler, StillRunningError
from everturn.runtime.workflow.store import InstanceId

# What names an instance, and by its router the app that it is of.
_OfInstance = (
    pb.RaiseEventRequest | pb.TerminateRequest | pb.SuspendRequest | pb.ResumeRequest | pb.PurgeInstancesRequest
)

# A page if the client names no size.
_PAGE_SIZE = 1024
# 0001-01-01T00:00:00Z: what daprd shows for the times of an instance that has not begun (Go's zero time).
_YEAR_ONE_S = -62_135_596_800


class TaskHub:
    """The workflows of one app in this runtime, and, by a request's router, those of the others in it."""

    def __init__(self, app_id: str, scheduler: Scheduler) -> None:
        self.app_id = app_id
        self._scheduler = scheduler

    async def call(self, rpc: Rpc[Req, Res], request: Req) -> Res:
        """As `Hub` promises it; of a wait, once it is over."""
        with _as_faults():
            return cast(Res, await getattr(self, rpc.method)(request))

    def keeps(self, instance_id: str) -> bool:
        """Whether this runtime has an instance of the app with that id."""
        with _as_faults():
            return self._find(self.app_id, instance_id) is not None

    async def start_instance(self, request: pb.CreateInstanceRequest) -> pb.CreateInstanceResponse:
        """ALREADY_EXISTS if an instance of that id is active; an ended one is replaced."""
        app_id = self._app_of(request.router)
        instance_id = request.instanceId or uuid.uuid4().hex
        start_at = None
        if request.HasField("scheduledStartTimestamp"):
            start_at = seconds_of(request.scheduledStartTimestamp)
        event = self._execution_started(request, instance_id, app_id)
        await self._scheduler.start(StartInstance(app_id, instance_id, event, start_at=start_at))
        return pb.CreateInstanceResponse(instanceId=instance_id)

    async def get_instance(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        instance = self._find(self._app_of(request.router), request.instanceId)
        return _response_of(instance, with_payloads=request.getInputsAndOutputs)

    async def wait_for_instance_start(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """Waits also for an instance that does not exist yet."""
        return await self._wait(request, lambda instance: instance.status is not Status.PENDING)

    async def wait_for_instance_completion(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """Waits also for an instance that does not exist yet."""
        return await self._wait(request, lambda instance: instance.ended)

    async def raise_event(self, request: pb.RaiseEventRequest) -> pb.RaiseEventResponse:
        """OK without effect on an ended instance."""
        raised = pb.EventRaisedEvent(name=request.name, input=optional(request, "input"))
        await self._send(self._existing(request), eventRaised=raised)
        return pb.RaiseEventResponse()

    async def terminate_instance(self, request: pb.TerminateRequest) -> pb.TerminateResponse:
        """Returns once the instance has ended."""
        terminated = pb.ExecutionTerminatedEvent(input=optional(request, "output"), recurse=request.recursive)
        instance = self._existing(request, "failed to terminate workflow: ")
        await self._send(instance, executionTerminated=terminated)
        await self._until(instance.id, lambda reached: reached.ended, instance)
        return pb.TerminateResponse()

    async def suspend_instance(self, request: pb.SuspendRequest) -> pb.SuspendResponse:
        """Returns once the instance is suspended, or has ended."""
        instance = self._existing(request)
        suspended = pb.ExecutionSuspendedEvent(input=optional(request, "reason"))
        await self._send(instance, executionSuspended=suspended)
        await self._until(instance.id, lambda reached: reached.ended or reached.state.suspended, instance)
        return pb.SuspendResponse()

    async def resume_instance(self, request: pb.ResumeRequest) -> pb.ResumeResponse:
        """Returns once the instance is not suspended."""
        instance = self._existing(request)
        resumed = pb.ExecutionResumedEvent(input=optional(request, "reason"))
        await self._send(instance, executionResumed=resumed)
        await self._until(instance.id, lambda reached: reached.ended or not reached.state.suspended, instance)
        return pb.ResumeResponse()

    async def purge_instances(self, request: pb.PurgeInstancesRequest) -> pb.PurgeInstancesResponse:
        """Ended instances only, unless forced. By filter: those that match and have ended."""
        app_id = self._app_of(request.router)
        if request.HasField("purgeInstanceFilter"):
            ids = self._matching(app_id, request)
        else:
            ids = [self._existing(request, "failed to purge workflow: ").row.instance_id]
        count = 0
        for instance_id in ids:
            instance = self._find(app_id, instance_id)
            if instance is not None:
                count += await self._scheduler.purge(instance, recursive=request.recursive, force=request.force)
        return pb.PurgeInstancesResponse(deletedInstanceCount=count, isComplete=pb.BoolValue(value=True))

    async def list_instance_ids(self, request: pb.ListInstanceIDsRequest) -> pb.ListInstanceIDsResponse:
        """In the order of ids; the token is the last id of the page."""
        size = request.pageSize or _PAGE_SIZE
        ids = self._scheduler.store.instance_ids(self.app_id, request.continuationToken, size + 1)
        token = ids[size - 1] if len(ids) > size else None
        return pb.ListInstanceIDsResponse(instanceIds=ids[:size], continuationToken=token)

    async def get_instance_history(self, request: pb.GetInstanceHistoryRequest) -> pb.GetInstanceHistoryResponse:
        instance = self._find(self.app_id, request.instanceId)
        if instance is None:
            raise rpc.not_found(f"workflow instance does not exist with ID '{request.instanceId}'")
        return pb.GetInstanceHistoryResponse(events=instance.history)

    async def rerun_workflow_from_event(
        self, request: pb.RerunWorkflowFromEventRequest
    ) -> pb.RerunWorkflowFromEventResponse:
        """A new instance from the history of an ended one that is nobody's child."""
        app_id, source_id = self._app_of(request.router), request.sourceInstanceID
        if request.HasField("newInstanceID") and request.newInstanceID == source_id:
            different = "rerun workflow instance ID must be different from the original instance ID"
            raise rpc.invalid_argument(different)
        source = self._find(app_id, source_id)
        if source is None:
            raise rpc.not_found(f"workflow instance does not exist with ID '{source_id}'")
        if not source.ended:
            raise rpc.invalid_argument(f"'{source_id}' is not in a terminal state")
        if source.row.is_child:
            raise rpc.invalid_argument(f"'{source_id}': cannot rerun from child-workflows")
        new_id = request.newInstanceID if request.HasField("newInstanceID") else str(uuid.uuid4())
        again = fork_history(source.history, request, (app_id, new_id), self._now(), self._scheduler.new_id)
        await self._scheduler.rerun(*again)
        return pb.RerunWorkflowFromEventResponse(newInstanceID=new_id)

    def _execution_started(self, request: pb.CreateInstanceRequest, instance_id: str, app_id: str) -> pb.HistoryEvent:
        started = pb.ExecutionStartedEvent(
            name=request.name,
            version=optional(request, "version"),
            input=optional(request, "input"),
            workflowInstance=instance_of(instance_id, request.executionId.value or self._scheduler.new_id()),
            parentTraceContext=optional(request, "parentTraceContext"),
            tags=request.tags,
        )
        if request.HasField("scheduledStartTimestamp"):
            started.scheduledStartTimestamp.CopyFrom(request.scheduledStartTimestamp)
        return event_at(self._now(), executionStarted=started, router=pb.TaskRouter(sourceAppID=app_id))

    def _app_of(self, router: pb.TaskRouter) -> str:
        return str(router.targetAppID) or self.app_id

    def _now(self) -> pb.Timestamp:
        return timestamp_of(self._scheduler.clock.now())

    def _find(self, app_id: str, instance_id: str) -> Instance | None:
        return self._scheduler.instances.get(app_id, instance_id)

    def _existing(self, request: _OfInstance, prefix: str = "") -> Instance:
        instance = self._find(self._app_of(request.router), request.instanceId)
        if instance is None:
            raise rpc.unknown(prefix + NO_SUCH_INSTANCE)
        return instance

    async def _send(self, instance: Instance, **payload: Any) -> None:
        if instance.status is Status.STALLED and not instance.released:
            raise rpc.unknown("actor is stalled")
        if not instance.ended:
            await self._scheduler.submit(instance, event_at(self._now(), **payload))

    async def _until(self, instance_id: InstanceId, condition: Condition, now: Instance | None) -> Instance:
        if now is not None and condition(now):
            return now
        return await self._scheduler.watchers.until(instance_id, condition)

    async def _wait(self, request: pb.GetInstanceRequest, condition: Condition) -> pb.GetInstanceResponse:
        instance_id = (self._app_of(request.router), request.instanceId)
        instance = await self._until(instance_id, condition, self._find(*instance_id))
        return _response_of(instance, with_payloads=request.getInputsAndOutputs)

    def _matching(self, app_id: str, request: pb.PurgeInstancesRequest) -> list[str]:
        wanted = request.purgeInstanceFilter
        start = seconds_of(wanted.createdTimeFrom) if wanted.HasField("createdTimeFrom") else 0.0
        end = seconds_of(wanted.createdTimeTo) if wanted.HasField("createdTimeTo") else float("inf")
        statuses = {Status(status) for status in wanted.runtimeStatus} & TERMINAL if wanted.runtimeStatus else TERMINAL
        return self._scheduler.store.created_between(app_id, start, end, statuses)


@contextmanager
def _as_faults() -> Iterator[None]:
    """What fails inside fails as the hub's clients know it."""
    try:
        yield
    except ConflictError as error:
        raise RpcFault(grpc.StatusCode.ALREADY_EXISTS, error.message) from error
    except StillRunningError as error:
        raise rpc.unknown(error.message) from error
    except ForkError as error:
        make = rpc.not_found if error.kind == "not_found" else rpc.invalid_argument
        raise make(error.message) from error
    except TransientError as error:
        raise rpc.unavailable(error.message) from error


def _response_of(instance: Instance | None, *, with_payloads: bool) -> pb.GetInstanceResponse:
    """The answer about an instance, None being one that does not exist.

    As daprd 1.18 fills it: no completedTimestamp, parent or tags; no name or times before the first work item.
    """
    if instance is None:
        return pb.GetInstanceResponse(exists=False)
    state, nothing = instance.state, pb.HistoryEvent()
    start = (state.start or nothing).executionStarted
    completed = (state.completed or nothing).executionCompleted
    seen = pb.WorkflowState(
        instanceId=instance.row.instance_id,
        executionId=pb.StringValue(value=state.execution_id) if state.start is not None else None,
        name=start.name,
        version=pb.StringValue(value=state.version) if state.version else None,
        workflowStatus=instance.status.on_wire,
        createdTimestamp=state.created_at or pb.Timestamp(seconds=_YEAR_ONE_S),
        startedAt=state.started_at,
        lastUpdatedTimestamp=state.updated_at or pb.Timestamp(seconds=_YEAR_ONE_S),
        failureDetails=optional(completed, "failureDetails"),
    )
    if with_payloads:
        status = instance.row.custom_status
        payloads = pb.WorkflowState(
            input=optional(start, "input"),
            output=optional(completed, "result"),
            customStatus=None if status is None else pb.StringValue(value=status),
        )
        seen.MergeFrom(payloads)
    return pb.GetInstanceResponse(exists=True, workflowState=seen)


class Stub:
    """What the client takes for its gRPC stub: methods by their names on the wire."""

    def __init__(self, hub: Hub) -> None:
        for each in RPCS:
            setattr(self, each.name, partial(_call, hub, each))


async def _call(hub: Hub, rpc: Rpc[Req, Res], request: Req, *, timeout: float | None = None, **_options: object) -> Res:
    try:
        if timeout is None:
            return await hub.call(rpc, request)
        async with asyncio.timeout(timeout):
            return await hub.call(rpc, request)
    except RpcFault as fault:
        raise _rpc_error(fault.code, fault.details) from fault
    except TimeoutError as error:
        raise _rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error


def _rpc_error(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details=details, debug_error_string=details)
