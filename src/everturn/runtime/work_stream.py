"""One stream of work items to a worker, and what is known of the worker at its end."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

from everturn.runtime.sdk import (
    WORKER_CAPABILITY_HEALTH_PING,
    WORKER_CAPABILITY_STATEFUL_HISTORY,
    ActivityRequest,
    HealthPing,
    WorkflowResponse,
    WorkItem,
)
from everturn.runtime.work_item import TooLargeError, Work
from everturn.runtime.work_messages import turn_message
from everturn.runtime.worker import WorkflowRequest

# 95% of Dapr's default of --max-body-size, 4 MiB: where daprd stalls a workflow.
MAX_ITEM_BYTES = 4 * 1024 * 1024 * 95 // 100
# A worker that announces nothing may be of the JavaScript SDK, which runs 10 items, queues 100 and drops what is more.
_MOST_FOR_A_PLAIN_WORKER = 100
# So many histories a worker is believed to hold; one that it has dropped after all costs it a call.
_MOST_WARM = 10_000


class WorkStream:
    """What was sent on one stream and is not answered; `out` is in the order of sending."""

    def __init__(self, capabilities: Collection[int]) -> None:
        self.wants_pings = WORKER_CAPABILITY_HEALTH_PING in capabilities
        self._keeps_histories = WORKER_CAPABILITY_STATEFUL_HISTORY in capabilities
        self._most = None if capabilities else _MOST_FOR_A_PLAIN_WORKER
        self.out: dict[str, Work[Any]] = {}
        self._items: asyncio.Queue[WorkItem | None] = asyncio.Queue()
        self._warm: dict[str, tuple[str, int]] = {}

    @property
    def has_room(self) -> bool:
        return self._most is None or len(self.out) < self._most

    def is_warm_for(self, work: Work[Any]) -> bool:
        """Whether the worker holds a part of the history that `work` goes on from."""
        return isinstance(work.request, WorkflowRequest) and self._held(work.request) > 0

    def send(self, work: Work[Any]) -> None:
        """Send `work`. Where it is too large, that is its answer: the worker's end would break the stream over it."""
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

    def answered(self, work: Work[Any]) -> None:
        """The work is done, whoever sent the answer."""
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

    def _item(self, work: Work[Any]) -> WorkItem:
        if isinstance(work.request, WorkflowRequest):
            message = turn_message(work.request, self._held(work.request))
            return WorkItem(workflowRequest=message, completionToken=work.token)
        activity: ActivityRequest = work.request
        return WorkItem(activityRequest=activity, completionToken=work.token)


def _ends_execution(response: WorkflowResponse) -> bool:
    return any(action.WhichOneof("workflowActionType") == "completeWorkflow" for action in response.actions)
