"""An app's workers in other processes, as the one `Worker` that the engine knows: work is sent on their streams.

What is out on a stream that breaks is sent on another one, or on the next that connects. An answer counts on whatever
connection it comes. The rules are those of daprd 1.18.
"""

import asyncio
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from typing import Any

from everturn.dapr.sdk.protocol import (
    WORKER_CAPABILITY_HEALTH_PING,
    WORKER_CAPABILITY_STATEFUL_HISTORY,
    ActivityRequest,
    ActivityResponse,
    HealthPing,
    WorkflowResponse,
    WorkItem,
)
from everturn.runtime.building_blocks import MAX_BODY_BYTES
from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.workflow.worker import TooLargeError, WorkflowRequest, failed_activity

# At this size daprd stalls a workflow.
MAX_ITEM_BYTES = MAX_BODY_BYTES * 95 // 100
# Proxies close a silent stream after a minute or more (Envoy's stream idle timeout is 5 minutes).
PING_EVERY_S = 30.0
# A worker that announces nothing may be of the JavaScript SDK, which runs 10 items, queues 100 and drops what is more.
_MOST_FOR_A_PLAIN_WORKER = 100
# So many histories a worker is believed to hold; one that it has dropped after all costs it a call.
_MOST_WARM = 10_000

# Results are matched by these alone, since some workers do not echo the token: the instance, and of an activity its
# number in it.
WorkKey = tuple[str, int | None]


@dataclass(slots=True, eq=False)
class Work:
    """One work item of a workflow, or one activity, for as long as nobody has answered it.

    `token` is echoed by the worker: an answer with another token is to an earlier work item, or to a task of the same
    number of an earlier execution.
    """

    key: WorkKey
    request: WorkflowRequest | ActivityRequest
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class WorkStream:
    """What was sent on one stream and is not answered; `out` is in the order of sending."""

    def __init__(self, capabilities: Collection[int]) -> None:
        self.wants_pings = WORKER_CAPABILITY_HEALTH_PING in capabilities
        self._keeps_histories = WORKER_CAPABILITY_STATEFUL_HISTORY in capabilities
        self._most = None if capabilities else _MOST_FOR_A_PLAIN_WORKER
        self.out: dict[str, Work] = {}
        self._items: asyncio.Queue[WorkItem | None] = asyncio.Queue()
        self._warm: dict[str, tuple[str, int]] = {}

    @property
    def has_room(self) -> bool:
        return self._most is None or len(self.out) < self._most

    def is_warm_for(self, work: Work) -> bool:
        """Whether the worker holds a beginning of the history that `work` continues."""
        return isinstance(work.request, WorkflowRequest) and self._held(work.request) > 0

    def send(self, work: Work) -> None:
        """Send `work`. If it is too large, that is its answer: the worker's end would break the stream over it."""
        item = self._item(work)
        size = item.ByteSize()
        if size > MAX_ITEM_BYTES:
            work.answer.set_exception(
                TooLargeError(f"{size} bytes are more than the {MAX_ITEM_BYTES} that can be sent")
            )
            return
        self.out[work.token] = work
        self._items.put_nowait(item)

    def ping(self) -> None:
        """Keep proxies from closing a stream on which nothing is due."""
        self._items.put_nowait(WorkItem(healthPing=HealthPing()))

    def close(self) -> None:
        """End the stream after what was sent."""
        self._items.put_nowait(None)

    def answered(self, work: Work) -> None:
        """The work is done, on whatever stream the answer came."""
        if self.out.pop(work.token, None) is None or not isinstance(work.request, WorkflowRequest):
            return
        request, answer = work.request, work.answer
        if not self._keeps_histories or answer.cancelled() or not answer.done():
            return
        if _ends_execution(answer.result()):
            self._warm.pop(request.instance_id, None)
            return
        self._warm[request.instance_id] = (request.execution_id, len(request.past_events))
        if len(self._warm) > _MOST_WARM:
            del self._warm[next(iter(self._warm))]

    async def items(self) -> AsyncGenerator[WorkItem, None]:
        while (item := await self._items.get()) is not None:
            yield item

    def _held(self, request: WorkflowRequest) -> int:
        """How many events of the history the worker has, so that they need not be sent.

        What it has is a beginning of the history for as long as the execution is the same: a history only grows.
        """
        execution_id, count = self._warm.get(request.instance_id, ("", 0))
        return count if execution_id == request.execution_id and count <= len(request.past_events) else 0

    def _item(self, work: Work) -> WorkItem:
        if isinstance(work.request, WorkflowRequest):
            message = work.request.message(self._held(work.request))
            return WorkItem(workflowRequest=message, completionToken=work.token)
        activity: ActivityRequest = work.request
        return WorkItem(activityRequest=activity, completionToken=work.token)


class RemoteWorker:
    """Never raises because a worker was lost: without a stream, work waits for one.

    `has_connected`: set by the first stream.
    """

    def __init__(self, clock: Clock) -> None:
        self.has_connected = asyncio.Event()
        self._clock = clock
        self._streams: list[WorkStream] = []
        self._waiting: OrderedDict[str, Work] = OrderedDict()
        self._unanswered: defaultdict[WorkKey, list[Work]] = defaultdict(list)
        self._ping_alarm: Alarm | None = None

    @property
    def connected(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """Turns and activities that no stream has taken."""
        return len(self._waiting)

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        try:
            answer: WorkflowResponse = await self._hand_out(Work((request.instance_id, None), request))
        except TooLargeError as error:
            raise TooLargeError(f"Payload size exceeded: {error}") from error
        return answer

    async def run_activity(self, request: ActivityRequest) -> ActivityResponse:
        key = (request.workflowInstance.instanceId, request.taskId)
        try:
            outcome: ActivityResponse = await self._hand_out(Work(key, request))
        except TooLargeError as error:
            return failed_activity(request, error)
        return outcome

    def complete_workflow(self, response: WorkflowResponse) -> None:
        """A worker's answer to a work item. Ignored if that is unknown or answered already."""
        self._settle((response.instanceId, None), response)

    def complete_activity(self, response: ActivityResponse) -> None:
        """A worker's answer to an activity. Ignored if that is unknown or answered already."""
        self._settle((response.instanceId, response.taskId), response)

    def connect(self, capabilities: Collection[int]) -> WorkStream:
        """A new stream, which gets work at once; it must be given to `disconnect` when it ends."""
        stream = WorkStream(capabilities)
        self._streams.append(stream)
        self.has_connected.set()
        self._assign()
        if self._ping_alarm is None:
            self._set_ping()
        return stream

    def disconnect(self, stream: WorkStream) -> None:
        """What is out on the stream is sent on the others, before what came later."""
        self._streams.remove(stream)
        self._waiting = OrderedDict(stream.out | self._waiting)
        stream.out = {}
        self._assign()
        if not self._streams and self._ping_alarm is not None:
            self._ping_alarm.cancel()
            self._ping_alarm = None

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams:
            stream.close()

    async def _hand_out(self, work: Work) -> Any:
        self._unanswered[work.key].append(work)
        self._waiting[work.token] = work
        self._assign()
        try:
            return await work.answer
        finally:
            self._forget(work)

    def _settle(self, key: WorkKey, response: WorkflowResponse | ActivityResponse) -> None:
        for work in reversed(self._unanswered.get(key, [])):
            if response.completionToken in ("", work.token) and not work.answer.done():
                work.answer.set_result(response)
                return

    def _forget(self, work: Work) -> None:
        self._unanswered[work.key].remove(work)
        if not self._unanswered[work.key]:
            del self._unanswered[work.key]
        self._waiting.pop(work.token, None)
        for stream in self._streams:
            stream.answered(work)
        self._assign()

    def _assign(self) -> None:
        while self._waiting:
            free = [stream for stream in self._streams if stream.has_room]
            if not free:
                return
            _, work = self._waiting.popitem(last=False)
            stream = min(free, key=lambda one: (len(one.out), not one.is_warm_for(work)))
            # The next one, of several that have as little to do.
            self._streams.remove(stream)
            self._streams.append(stream)
            stream.send(work)

    def _set_ping(self) -> None:
        self._ping_alarm = self._clock.call_at(self._clock.now() + PING_EVERY_S, self._ping)

    def _ping(self) -> None:
        for stream in self._streams:
            if stream.wants_pings:
                stream.ping()
        self._set_ping()


def _ends_execution(response: WorkflowResponse) -> bool:
    return any(action.WhichOneof("workflowActionType") == "completeWorkflow" for action in response.actions)
