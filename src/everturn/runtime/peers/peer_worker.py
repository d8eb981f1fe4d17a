"""Workflow work between two runtimes: work items and activities go to the runtime whose app has the code.

The workflow and all that it knows stay in the runtime that started it; work that was not answered is sent again, as it
is to a worker whose stream broke. So an activity runs at least once, a work item that counts only once.
"""

from everturn.dapr.sdk import protocol as pb
from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TransientError
from everturn.runtime.workflow.worker import TooLargeError, Worker, WorkflowRequest

TURN = "/tasks/turn"
ACTIVITY = "/tasks/activity"
_PROTOBUF = {"content-type": "application/protobuf"}
_TOO_LARGE = 413


class PeerWorker:
    """The `Worker` of an app of another runtime, reached over `transport`. Its failures are TransientError."""

    def __init__(self, app_id: str, transport: Transport) -> None:
        self._app_id = app_id
        self._transport = transport

    async def run_workflow(self, request: WorkflowRequest) -> pb.WorkflowResponse:
        response = await self._ask(TURN, request.message().SerializeToString())
        if response.status == _TOO_LARGE:
            raise TooLargeError(response.body.decode() or "Payload size exceeded")
        return pb.WorkflowResponse.FromString(response.body)

    async def run_activity(self, request: pb.ActivityRequest) -> pb.ActivityResponse:
        response = await self._ask(ACTIVITY, request.SerializeToString())
        return pb.ActivityResponse.FromString(response.body)

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
    answer: pb.WorkflowResponse | pb.ActivityResponse
    try:
        if request.target == TURN:
            answer = await worker.run_workflow(WorkflowRequest.of(pb.WorkflowWork.FromString(request.body)))
        else:
            answer = await worker.run_activity(pb.ActivityRequest.FromString(request.body))
    except TooLargeError as error:
        return Response(_TOO_LARGE, {}, error.message.encode())
    except TransientError:
        return Response(503)
    return Response(200, _PROTOBUF, answer.SerializeToString())
