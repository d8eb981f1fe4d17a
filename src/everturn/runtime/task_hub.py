"""The task hub of an app: the client side of Dapr's `TaskHubSidecarService`, as async methods on its messages.

What each answers and how it fails is daprd 1.18's (dapr-wire); the in-process client and a gRPC front are thin shells
around it. Every method raises RpcFault, and returns only what is on disk.
"""

import uuid
from collections.abc import Awaitable
from typing import TypeVar

from everturn.errors import ConflictError, TransientError
from everturn.runtime import rpc_fault
from everturn.runtime.engine.events import event_at, timestamp_of
from everturn.runtime.engine.fork import ForkError, ForkRequest, fork_history
from everturn.runtime.engine.messages import StartInstance, instance_of
from everturn.runtime.engine.state import TERMINAL, Status, seconds_of
from everturn.runtime.host import Host
from everturn.runtime.instances import Condition, Instance
from everturn.runtime.management import StillRunningError, purge_instances, rerun_instance, start_instance
from everturn.runtime.rpc_fault import NO_SUCH_INSTANCE
from everturn.runtime.sdk import (
    BoolValue,
    CreateInstanceRequest,
    CreateInstanceResponse,
    EventRaisedEvent,
    ExecutionResumedEvent,
    ExecutionStartedEvent,
    ExecutionSuspendedEvent,
    ExecutionTerminatedEvent,
    GetInstanceHistoryRequest,
    GetInstanceHistoryResponse,
    GetInstanceRequest,
    GetInstanceResponse,
    HistoryEvent,
    ListInstanceIDsRequest,
    ListInstanceIDsResponse,
    PurgeInstancesRequest,
    PurgeInstancesResponse,
    RaiseEventRequest,
    RaiseEventResponse,
    RerunWorkflowFromEventRequest,
    RerunWorkflowFromEventResponse,
    ResumeRequest,
    ResumeResponse,
    SuspendRequest,
    SuspendResponse,
    TaskRouter,
    TerminateRequest,
    TerminateResponse,
    Timestamp,
)
from everturn.runtime.workflow_state import response_of

T = TypeVar("T")

# A page where the client names no size.
_PAGE_SIZE = 1024


class TaskHub:
    """The workflows of one app, and, by a request's router, those of the others."""

    def __init__(self, app_id: str, host: Host) -> None:
        self._app_id = app_id
        self._host = host

    async def start_instance(self, request: CreateInstanceRequest) -> CreateInstanceResponse:
        """ALREADY_EXISTS where an instance of that id is active; an ended one is replaced."""
        app_id = self._app_of(request.router)
        instance_id = request.instanceId or uuid.uuid4().hex
        start_at = None
        if request.HasField("scheduledStartTimestamp"):
            start_at = seconds_of(request.scheduledStartTimestamp)
        event = self._execution_started(request, instance_id, app_id)
        await _faults(start_instance(self._host, StartInstance(app_id, instance_id, event, start_at=start_at)))
        return CreateInstanceResponse(instanceId=instance_id)

    async def get_instance(self, request: GetInstanceRequest) -> GetInstanceResponse:
        instance = self._find(self._app_of(request.router), request.instanceId)
        return response_of(instance, with_payloads=request.getInputsAndOutputs)

    async def wait_for_instance_start(self, request: GetInstanceRequest) -> GetInstanceResponse:
        """Waits also for an instance that does not exist yet."""
        return await self._wait(request, lambda instance: instance.status is not Status.PENDING)

    async def wait_for_instance_completion(self, request: GetInstanceRequest) -> GetInstanceResponse:
        """Waits also for an instance that does not exist yet."""
        return await self._wait(request, lambda instance: instance.ended)

    async def raise_event(self, request: RaiseEventRequest) -> RaiseEventResponse:
        """OK without effect on an ended instance."""
        raised = EventRaisedEvent(name=request.name, input=request.input if request.HasField("input") else None)
        instance = self._existing(self._app_of(request.router), request.instanceId, "")
        await self._send(instance, event_at(self._now(), eventRaised=raised))
        return RaiseEventResponse()

    async def terminate_instance(self, request: TerminateRequest) -> TerminateResponse:
        """Returns once the instance has ended."""
        output = request.output if request.HasField("output") else None
        terminated = ExecutionTerminatedEvent(input=output, recurse=request.recursive)
        app_id = self._app_of(request.router)
        instance = self._existing(app_id, request.instanceId, "failed to terminate workflow: ")
        await self._send(instance, event_at(self._now(), executionTerminated=terminated))
        await self._until(instance, lambda reached: reached.ended)
        return TerminateResponse()

    async def suspend_instance(self, request: SuspendRequest) -> SuspendResponse:
        """Returns once the instance is suspended, or has ended."""
        suspended = ExecutionSuspendedEvent(input=request.reason if request.HasField("reason") else None)
        instance = self._existing(self._app_of(request.router), request.instanceId, "")
        await self._send(instance, event_at(self._now(), executionSuspended=suspended))
        await self._until(instance, lambda reached: reached.ended or reached.state.suspended)
        return SuspendResponse()

    async def resume_instance(self, request: ResumeRequest) -> ResumeResponse:
        """Returns once the instance is not suspended."""
        resumed = ExecutionResumedEvent(input=request.reason if request.HasField("reason") else None)
        instance = self._existing(self._app_of(request.router), request.instanceId, "")
        await self._send(instance, event_at(self._now(), executionResumed=resumed))
        await self._until(instance, lambda reached: reached.ended or not reached.state.suspended)
        return ResumeResponse()

    async def purge_instances(self, request: PurgeInstancesRequest) -> PurgeInstancesResponse:
        """Ended instances only, unless forced. By filter: those that match and have ended."""
        app_id = self._app_of(request.router)
        if request.HasField("purgeInstanceFilter"):
            ids = self._matching(app_id, request)
        else:
            ids = [request.instanceId]
            self._existing(app_id, request.instanceId, "failed to purge workflow: ")
        count = 0
        for instance_id in ids:
            instance = self._find(app_id, instance_id)
            if instance is not None:
                purge = purge_instances(self._host, instance, recursive=request.recursive, force=request.force)
                count += await _faults(purge)
        return PurgeInstancesResponse(deletedInstanceCount=count, isComplete=BoolValue(value=True))

    async def list_instance_ids(self, request: ListInstanceIDsRequest) -> ListInstanceIDsResponse:
        """In the order of ids; the token is the last id of the page."""
        size = request.pageSize or _PAGE_SIZE
        try:
            ids = self._host.store.instance_ids(self._app_id, request.continuationToken, size + 1)
        except TransientError as error:
            raise rpc_fault.unavailable(error.message) from error
        token = ids[size - 1] if len(ids) > size else None
        return ListInstanceIDsResponse(instanceIds=ids[:size], continuationToken=token)

    async def get_instance_history(self, request: GetInstanceHistoryRequest) -> GetInstanceHistoryResponse:
        instance = self._find(self._app_id, request.instanceId)
        if instance is None:
            raise rpc_fault.not_found(f"workflow instance does not exist with ID '{request.instanceId}'")
        return GetInstanceHistoryResponse(events=instance.history)

    async def rerun_workflow_from_event(self, request: RerunWorkflowFromEventRequest) -> RerunWorkflowFromEventResponse:
        """A new instance from the history of an ended one that is nobody's child."""
        app_id, source_id = self._app_of(request.router), request.sourceInstanceID
        if request.HasField("newInstanceID") and request.newInstanceID == source_id:
            different = "rerun workflow instance ID must be different from the original instance ID"
            raise rpc_fault.invalid_argument(different)
        source = self._find(app_id, source_id)
        if source is None:
            raise rpc_fault.not_found(f"workflow instance does not exist with ID '{source_id}'")
        if not source.ended:
            raise rpc_fault.invalid_argument(f"'{source_id}' is not in a terminal state")
        if source.row.is_child:
            raise rpc_fault.invalid_argument(f"'{source_id}': cannot rerun from child-workflows")
        new_id = request.newInstanceID if request.HasField("newInstanceID") else str(uuid.uuid4())
        wanted = ForkRequest(
            app_id,
            source_id,
            request.eventID,
            new_id,
            self._host.new_id(),
            self._host.clock.now(),
            request.overwriteInput,
            request.input if request.HasField("input") else None,
            request.newChildWorkflowInstanceID if request.HasField("newChildWorkflowInstanceID") else None,
        )
        try:
            fork = fork_history(source.history, wanted, self._host.new_id)
        except ForkError as error:
            make = rpc_fault.not_found if error.kind == "not_found" else rpc_fault.invalid_argument
            raise make(error.message) from error
        await _faults(rerun_instance(self._host, app_id, new_id, fork))
        return RerunWorkflowFromEventResponse(newInstanceID=new_id)

    def _execution_started(self, request: CreateInstanceRequest, instance_id: str, app_id: str) -> HistoryEvent:
        started = ExecutionStartedEvent(
            name=request.name,
            version=request.version if request.HasField("version") else None,
            input=request.input if request.HasField("input") else None,
            workflowInstance=instance_of(instance_id, request.executionId.value or self._host.new_id()),
            parentTraceContext=request.parentTraceContext if request.HasField("parentTraceContext") else None,
            tags=request.tags,
        )
        if request.HasField("scheduledStartTimestamp"):
            started.scheduledStartTimestamp.CopyFrom(request.scheduledStartTimestamp)
        return event_at(self._now(), executionStarted=started, router=TaskRouter(sourceAppID=app_id))

    def _app_of(self, router: TaskRouter) -> str:
        return str(router.targetAppID) or self._app_id

    def _now(self) -> Timestamp:
        return timestamp_of(self._host.clock.now())

    def _find(self, app_id: str, instance_id: str) -> Instance | None:
        try:
            return self._host.instances.get(app_id, instance_id)
        except TransientError as error:
            raise rpc_fault.unavailable(error.message) from error

    def _existing(self, app_id: str, instance_id: str, prefix: str) -> Instance:
        instance = self._find(app_id, instance_id)
        if instance is None:
            raise rpc_fault.unknown(prefix + NO_SUCH_INSTANCE)
        return instance

    async def _send(self, instance: Instance, event: HistoryEvent) -> None:
        if instance.status is Status.STALLED and not instance.released:
            raise rpc_fault.unknown("actor is stalled")
        if not instance.ended:
            await _faults(self._host.submit(instance, event))

    async def _until(self, instance: Instance, condition: Condition) -> Instance:
        if condition(instance):
            return instance
        return await self._host.watchers.until(instance.id, condition)

    async def _wait(self, request: GetInstanceRequest, condition: Condition) -> GetInstanceResponse:
        app_id = self._app_of(request.router)
        instance = self._find(app_id, request.instanceId)
        if instance is None or not condition(instance):
            instance = await self._host.watchers.until((app_id, request.instanceId), condition)
        return response_of(instance, with_payloads=request.getInputsAndOutputs)

    def _matching(self, app_id: str, request: PurgeInstancesRequest) -> list[str]:
        wanted = request.purgeInstanceFilter
        start = seconds_of(wanted.createdTimeFrom) if wanted.HasField("createdTimeFrom") else 0.0
        end = seconds_of(wanted.createdTimeTo) if wanted.HasField("createdTimeTo") else float("inf")
        statuses = {Status(status) for status in wanted.runtimeStatus} & TERMINAL if wanted.runtimeStatus else TERMINAL
        try:
            return self._host.store.created_between(app_id, start, end, statuses)
        except TransientError as error:
            raise rpc_fault.unavailable(error.message) from error


async def _faults(call: Awaitable[T]) -> T:
    """The call's result; its errors as the hub's clients know them."""
    try:
        return await call
    except ConflictError as error:
        raise rpc_fault.already_exists(error.message) from error
    except StillRunningError as error:
        raise rpc_fault.unknown(error.message) from error
    except TransientError as error:
        raise rpc_fault.unavailable(error.message) from error
