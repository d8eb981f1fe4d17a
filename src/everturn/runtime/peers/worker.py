"""Workflow work between two runtimes: work items and activities go to the runtime whose app has the code.

The workflow and all that it knows stay in the runtime that started it; work that was not answered is sent again, as it
is to a worker whose stream broke. So an activity runs at least once, a work item that counts only once.
"""

from everturn.dapr.sdk import protocol as pb
from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TransientError
from everturn.runtime.workflow.messages import (
    outcome_message,
    outcome_of,
    replay_message,
    replay_of,
    request_of,
    work_message,
)
from everturn.runtime.workflow.worker import ActivityOutcome, Worker, WorkflowRequest

TURN = "/tasks/turn"
ACTIVITY = "/tasks/activity"
_PROTOBUF = {"content-type": "application/protobuf"}
_TOO_LARGE = 413


class PeerWorker:
    """The `Worker` of an app of another runtime, reached over `transport`. Its failures are TransientError."""

    def __init__(self, app_id: str, transport: Transport) -> None:
        self._app_id = app_id
        self._transport = transport

    async def run_workflow(self, request: WorkflowRequest) -> pb.Replay:
        response = await self._ask(TURN, work_message(request).SerializeToString())
        if response.status == _TOO_LARGE:
            return pb.Replay((), too_large=response.body.decode() or "Payload size exceeded")
        return replay_of(pb.WorkflowResponse.FromString(response.body))

    async def run_activity(self, request: pb.ActivityRequest) -> ActivityOutcome:
        response = await self._ask(ACTIVITY, request.SerializeToString())
        return outcome_of(pb.ActivityResponse.FromString(response.body))

    def close(self) -> None:
        """The transport is its maker's to close."""

    async def _ask(self, target: str, body: bytes) -> Response:
        response = await self._transport.send(Request("POST", target, _PROTOBUF, body))
        if response.status == 200 or (response.status == _TOO_LARGE and target == TURN):
            return response
        raise TransientError(
            f"the runtime of app {self._app_id!r} did not do its work: {response.status}", kind="worker_lost"
        )


async def do_work(worker: Worker, request: Request) -> Response:
    """Answer what `PeerWorker` asks with the app's own worker: 200, 413 if it is too large, 503 if it was lost."""
    try:
        if request.target == TURN:
            return await _run_workflow(worker, request_of(pb.WorkflowWork.FromString(request.body)))
        activity = pb.ActivityRequest.FromString(request.body)
        outcome = await worker.run_activity(activity)
    except TransientError:
        return Response(503)
    return Response(200, _PROTOBUF, outcome_message(activity, outcome).SerializeToString())


async def _run_workflow(worker: Worker, request: WorkflowRequest) -> Response:
    replay = await worker.run_workflow(request)
    if replay.too_large is not None:
        return Response(_TOO_LARGE, {}, replay.too_large.encode())
    return Response(200, _PROTOBUF, replay_message(request, replay).SerializeToString())
