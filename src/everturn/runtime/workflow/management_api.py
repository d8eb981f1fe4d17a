"""Dapr's own workflow API: what HTTP and gRPC share of it. The SDKs' workers and clients use the task hub instead.

Rules, codes and words are those of daprd 1.18 (pkg/api/universal/workflow.go, pkg/runtime/wfengine/client.go), compared
with a running one. https://docs.dapr.io/reference/api/workflow_api/
"""

import uuid

from dapr.proto.runtime.v1.workflow_pb2 import (
    GetWorkflowRequest,
    GetWorkflowResponse,
    PauseWorkflowRequest,
    PurgeWorkflowRequest,
    RaiseEventWorkflowRequest,
    ResumeWorkflowRequest,
    StartWorkflowRequest,
    StartWorkflowResponse,
    TerminateWorkflowRequest,
)
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.sdk import protocol as pb
from everturn.runtime.errors import DaprError
from everturn.runtime.workflow import rpc
from everturn.runtime.workflow.core.state import optional
from everturn.runtime.workflow.rpc import NO_SUCH_INSTANCE, Hub, Req, Res, Rpc, RpcFault

_MAX_ID_CHARS = 64
# By the value of the protocol's enumeration; daprd knows no name for a stalled one.
_STATUSES = (
    "RUNNING",
    "COMPLETED",
    "CONTINUED_AS_NEW",
    "FAILED",
    "CANCELED",
    "TERMINATED",
    "PENDING",
    "SUSPENDED",
    "UNKNOWN",
)
_START_TIME = "dapr.workflow.start_time"


class WorkflowApi:
    """The workflows of one app. Every method raises DaprError."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self, request: StartWorkflowRequest) -> StartWorkflowResponse:
        """The id, a random one if none was asked for. 500 if an instance of that id is active."""
        instance_id = request.instance_id or str(uuid.uuid4())
        _check_new_id(instance_id)
        if not request.workflow_name:
            raise DaprError(400, "ERR_WORKFLOW_NAME_MISSING", "workflow name is not configured")
        what = f"error starting workflow '{request.workflow_name}': unable to start workflow"
        create = pb.CreateInstanceRequest(
            instanceId=instance_id,
            name=request.workflow_name,
            input=_text(request.input, "ERR_START_WORKFLOW", what),
        )
        if _START_TIME in request.options:
            create.scheduledStartTimestamp.CopyFrom(_start_time(request.options[_START_TIME], what))
        await self._ask(rpc.START, create, "ERR_START_WORKFLOW", f"{what}: failed to start workflow")
        return StartWorkflowResponse(instance_id=instance_id)

    async def get(self, request: GetWorkflowRequest) -> GetWorkflowResponse:
        """The state of the instance; of one that does not exist, its id alone."""
        instance_id = _known_id(request.instance_id)
        what = f"error while getting workflow info on instance '{instance_id}'"
        asked = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        answer = await self._ask(rpc.GET, asked, "ERR_GET_WORKFLOW", what)
        if not answer.exists:
            return GetWorkflowResponse(instance_id=instance_id)
        seen = answer.workflowState
        return GetWorkflowResponse(
            instance_id=instance_id,
            workflow_name=seen.name,
            created_at=seen.createdTimestamp,
            last_updated_at=seen.lastUpdatedTimestamp,
            runtime_status=_STATUSES[seen.workflowStatus],
            properties=_properties(seen),
        )

    async def raise_event(self, request: RaiseEventWorkflowRequest) -> Empty:
        instance_id = _known_id(request.instance_id)
        if not request.event_name:
            raise DaprError(400, "ERR_WORKFLOW_EVENT_NAME_MISSING", "missing workflow event name")
        what = (
            f"error raising event on workflow '{instance_id}': failed to raise event {request.event_name} on workflow"
        )
        data = _text(request.event_data, "ERR_RAISE_EVENT_WORKFLOW", what)
        event = pb.RaiseEventRequest(instanceId=instance_id, name=request.event_name, input=data)
        what = f"{what} {instance_id}: failed to raise event"
        await self._ask(rpc.RAISE_EVENT, event, "ERR_RAISE_EVENT_WORKFLOW", what)
        return Empty()

    async def pause(self, request: PauseWorkflowRequest) -> Empty:
        """Done once it is suspended."""
        instance_id = _known_id(request.instance_id)
        what = f"error pausing workflow {instance_id}: failed to pause workflow {instance_id}"
        suspend = pb.SuspendRequest(instanceId=instance_id)
        await self._ask(rpc.SUSPEND, suspend, "ERR_PAUSE_WORKFLOW", f"{what}: failed to suspend workflow")
        return Empty()

    async def resume(self, request: ResumeWorkflowRequest) -> Empty:
        instance_id = _known_id(request.instance_id)
        what = f"error resuming workflow {instance_id}: failed to resume workflow {instance_id}"
        resume = pb.ResumeRequest(instanceId=instance_id)
        await self._ask(rpc.RESUME, resume, "ERR_RESUME_WORKFLOW", f"{what}: failed to resume workflow")
        return Empty()

    async def terminate(self, request: TerminateWorkflowRequest) -> Empty:
        """Done once it has ended; its children are ended after it."""
        instance_id = _known_id(request.instance_id)
        what = f"error terminating workflow '{instance_id}'"
        terminate = pb.TerminateRequest(instanceId=instance_id, recursive=True)
        await self._ask(rpc.TERMINATE, terminate, "ERR_TERMINATE_WORKFLOW", what, missing=instance_id)
        return Empty()

    async def purge(self, request: PurgeWorkflowRequest) -> Empty:
        """Done once it and its children are gone. 500 if it has not ended."""
        instance_id = _known_id(request.instance_id)
        what = f"error purging workflow {instance_id}: failed to purge workflow state"
        purge = pb.PurgeInstancesRequest(instanceId=instance_id, recursive=True)
        await self._ask(rpc.PURGE, purge, "ERR_PURGE_WORKFLOW", what, missing=instance_id)
        return Empty()

    async def _ask(self, call: Rpc[Req, Res], request: Req, code: str, what: str, *, missing: str | None = None) -> Res:
        """The hub's answer. `missing`: the instance for which "no such instance" is a 404; elsewhere it is a 500."""
        try:
            return await self._hub.call(call, request)
        except RpcFault as fault:
            if missing is not None and fault.details.endswith(NO_SUCH_INSTANCE):
                raise not_found(missing) from fault
            raise DaprError(500, code, f"{what}: {fault.details}") from fault


def not_found(instance_id: str) -> DaprError:
    message = f"unable to find workflow with the provided instance ID: {instance_id}"
    return DaprError(404, "ERR_INSTANCE_ID_NOT_FOUND", message)


def _known_id(instance_id: str) -> str:
    if not instance_id:
        raise DaprError(400, "ERR_INSTANCE_ID_PROVIDED_MISSING", "no instance ID was provided")
    return instance_id


def _check_new_id(instance_id: str) -> None:
    if len(instance_id.encode()) > _MAX_ID_CHARS:
        message = f"workflow instance ID exceeds the max length of {_MAX_ID_CHARS} characters"
        raise DaprError(400, "ERR_INSTANCE_ID_TOO_LONG", message)
    if not all(char.isalpha() or char.isdecimal() or char in "_-" for char in instance_id):
        rule = "only alphanumeric and underscore characters are allowed"
        raise DaprError(400, "ERR_INSTANCE_ID_INVALID", f"workflow instance ID '{instance_id}' is invalid: {rule}")


def _text(payload: bytes, code: str, what: str) -> pb.StringValue:
    """Payloads are text in the protocol, whatever it is; an absent one is empty."""
    try:
        return pb.StringValue(value=payload.decode())
    except UnicodeDecodeError as error:
        raise DaprError(500, code, f"{what}: string field contains invalid UTF-8") from error


def _start_time(text: str, what: str) -> pb.Timestamp:
    moment = pb.Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError as error:
        rule = 'start times must be in RFC3339 format (e.g. "2009-11-10T23:00:00Z")'
        raise DaprError(500, "ERR_START_WORKFLOW", f"{what}: {rule}") from error
    return moment


def _properties(seen: pb.WorkflowState) -> dict[str, str]:
    payloads = {"custom_status": "customStatus", "input": "input", "output": "output"}
    properties = {
        f"dapr.workflow.{name}": value.value for name, field in payloads.items() if (value := optional(seen, field))
    }
    if seen.HasField("failureDetails"):
        failure = seen.failureDetails
        properties["dapr.workflow.failure.error_type"] = failure.errorType
        properties["dapr.workflow.failure.error_message"] = failure.errorMessage
        if failure.HasField("stackTrace"):
            properties["dapr.workflow.failure.stack_trace"] = failure.stackTrace.value
    return properties
