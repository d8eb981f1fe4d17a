"""What runs workflow code and activities: the `Worker` protocol, its requests and answers.

`LocalWorker` runs them in this process, in the service's own loop. `Activities` are those under way: each is run by its
app's worker, once at a time, and its outcome goes to its instance.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

from dapr.ext.workflow import WorkflowRuntime

from everturn.dapr.sdk import protocol as pb
from everturn.dapr.sdk.execution import Execution, Registered
from everturn.errors import TerminalError, TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.workflow.core.state import event_at, optional, timestamp_of
from everturn.runtime.workflow.store import ActivityTask

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkflowRequest:
    """A work item for a worker: replay `past_events`, then take `new_events`. Neither may be changed or kept."""

    instance_id: str
    execution_id: str
    past_events: Sequence[pb.HistoryEvent]
    new_events: Sequence[pb.HistoryEvent]
    propagated: pb.PropagatedHistory | None = None

    @classmethod
    def of(cls, message: pb.WorkflowWork) -> Self:
        """The request whose whole history is in `message`."""
        propagated = optional(message, "propagatedHistory")
        return cls(message.instanceId, message.executionId.value, message.pastEvents, message.newEvents, propagated)

    def message(self, held: int = 0) -> pb.WorkflowWork:
        """As Dapr's protocol has it, for a worker that has the first `held` events of the history already."""
        return pb.WorkflowWork(
            instanceId=self.instance_id,
            executionId=pb.StringValue(value=self.execution_id),
            pastEvents=self.past_events[held:],
            newEvents=self.new_events,
            propagatedHistory=self.propagated,
            cachedHistory=pb.CachedHistory(eventCount=held) if held else None,
        )


class TooLargeError(TerminalError):
    """Work that no worker would take: the message of it is longer than can be sent."""

    kind = "too_large"


class Worker(Protocol):
    """An app's worker, here or behind a stream. At most one work item of an instance is out at a time."""

    async def run_workflow(self, request: WorkflowRequest) -> pb.WorkflowResponse:
        """Replay a workflow.

        Raises TransientError (kind `worker_lost`) if no answer will come; the work item is then sent out again. Raises
        TooLargeError if it cannot be sent to a worker at all.
        """
        ...

    async def run_activity(self, request: pb.ActivityRequest) -> pb.ActivityResponse:
        """Run an activity to its end; its own errors are an outcome.

        Raises TransientError (kind `worker_lost`) if no answer will come; it is then sent out again.
        """
        ...

    def close(self) -> None:
        """Let go of threads. Called once, after the last request."""
        ...


class Workers:
    """The workers of this runtime by app id, and beyond them those that `elsewhere` knows of other runtimes."""

    def __init__(self, elsewhere: Callable[[str], Worker | None] | None = None) -> None:
        self.own: dict[str, Worker] = {}
        self._elsewhere = elsewhere

    def find(self, app_id: str) -> Worker | None:
        """What runs the app's code now, None if nothing does."""
        worker = self.own.get(app_id)
        return self._elsewhere(app_id) if worker is None and self._elsewhere is not None else worker


# More workflows than this are replayed: a suspended generator and its frames take memory.
_MAX_WARM = 1_000
_LAST_ACTIONS = frozenset({"completeWorkflow", "workflowVersionNotAvailable"})
# What waits for time alone may do so for hours, and is cheap to replay.
_TIMERS_ALONE = {"createTimer"}


@dataclass(frozen=True, slots=True)
class _Warm:
    """A workflow after so many events of its history, the last of which was `last_event`."""

    execution: Execution
    event_count: int
    last_event: pb.HistoryEvent

    def is_part_of(self, history: Sequence[pb.HistoryEvent]) -> bool:
        """Whether the work item that it took is the one that was committed: that very event is in the history."""
        return len(history) >= self.event_count and history[self.event_count - 1] is self.last_event


class LocalWorker:
    """Runs what is registered on a `WorkflowRuntime`: workflows and coroutine activities in the loop, plain
    activities in threads.

    Workflows are kept warm between their work items, so that one costs what is new and not the whole history; what
    was dropped, or took a work item that was not committed, is replayed.
    """

    def __init__(self, runtime: WorkflowRuntime) -> None:
        self._registered = Registered(runtime)
        self._warm: OrderedDict[tuple[str, str], _Warm] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None

    async def run_workflow(self, request: WorkflowRequest) -> pb.WorkflowResponse:
        name = (request.instance_id, request.execution_id)
        warm = self._warm.pop(name, None)
        past_events, new_events = request.past_events, request.new_events
        if warm is not None and warm.is_part_of(past_events):
            execution = warm.execution
            replay = execution.take(past_events[warm.event_count :], new_events)
        else:
            execution = self._registered.execution(request.instance_id, request.propagated)
            replay = execution.take(past_events, new_events)
        actions = {action.WhichOneof("workflowActionType") for action in replay.actions}
        if actions != _TIMERS_ALONE and not actions & _LAST_ACTIONS:
            self._warm[name] = _Warm(execution, len(past_events) + len(new_events), new_events[-1])
            if len(self._warm) > _MAX_WARM:
                self._warm.popitem(last=False)
        return replay

    async def run_activity(self, request: pb.ActivityRequest) -> pb.ActivityResponse:
        try:
            if self._registered.is_coroutine_activity(request.name):
                result = await self._registered.await_activity(request)
            else:
                run = asyncio.get_running_loop().run_in_executor
                result = await run(self._thread_pool(), self._registered.run_activity, request)
        except Exception as error:  # noqa: BLE001 - an activity's failure is its workflow's business
            return failed_activity(request, error)
        value = None if result is None else pb.StringValue(value=result)
        return pb.ActivityResponse(instanceId=request.workflowInstance.instanceId, taskId=request.taskId, result=value)

    def close(self) -> None:
        self._warm.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _thread_pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._registered.thread_count, "everturn-activity")
        return self._threads


_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0


Finish = Callable[[ActivityTask, pb.HistoryEvent], Awaitable[None]]


class Activities:
    """Runs activities until `stop`; one that was left unfinished is still on disk, for the next start."""

    def __init__(self, clock: Clock, workers: Workers, finish: Finish) -> None:
        self._clock = clock
        self._workers = workers
        self._finish = finish
        self._running: dict[tuple[int, str, int], tuple[str, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def run(self, task: ActivityTask) -> None:
        """Start an activity, unless it is running already; without a worker for it, it waits on disk for one."""
        running = (task.key, task.execution_id, task.scheduled.eventId)
        if self._workers.find(task.app_id) is None:
            log.warning("activity_waits_for_app", extra=_ids(task))
        elif running not in self._running:
            started = asyncio.get_running_loop().create_task(self._run(task, running))
            self._running[running] = (task.app_id, started)

    async def stop(self, app_id: str | None, limit_s: float) -> None:
        """Let what runs for the app, or for any, finish within `limit_s` seconds, and cancel the rest."""
        tasks = [started for runs_at, started in self._running.values() if app_id is None or runs_at == app_id]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)
        left = [started for started in tasks if not started.done()]
        for started in left:
            started.cancel()
        if left:
            log.warning("activities_left", extra={"app_id": app_id, "count": len(left)})
            await asyncio.wait(left)

    async def _run(self, task: ActivityTask, running: tuple[int, str, int]) -> None:
        try:
            event = await self._outcome(task)
            if event is not None:
                await self._finish(task, event)
        finally:
            del self._running[running]

    async def _outcome(self, task: ActivityTask) -> pb.HistoryEvent | None:
        request, outcome, failures = _request(task), None, 0
        while outcome is None:
            worker = self._workers.find(task.app_id)
            if worker is None:
                return None
            try:
                outcome = await worker.run_activity(request)
            except TransientError as error:
                log.warning("activity_lost", extra={**_ids(task), "kind": error.kind})
                await asyncio.sleep(retry_delay_s(failures))
                failures += 1
            except asyncio.CancelledError as error:
                current = asyncio.current_task()
                if current is None or current.cancelling():
                    raise
                # The activity's own code let a cancellation through: that is a failure like any other.
                outcome = failed_activity(request, error)
        return _outcome_event(task, outcome, self._clock.now())


def retry_delay_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row of the disk or of a worker."""
    return min(_FIRST_RETRY_S * 2.0 ** min(failures, 10), _LAST_RETRY_S)


def _request(task: ActivityTask) -> pb.ActivityRequest:
    scheduled = task.scheduled.taskScheduled
    return pb.ActivityRequest(
        name=scheduled.name,
        version=optional(scheduled, "version"),
        input=optional(scheduled, "input"),
        workflowInstance=pb.WorkflowInstance(
            instanceId=task.owner[1], executionId=pb.StringValue(value=task.execution_id)
        ),
        taskId=task.scheduled.eventId,
        taskExecutionId=scheduled.taskExecutionId,
        propagatedHistory=task.propagated,
    )


def failed_activity(request: pb.ActivityRequest, error: BaseException) -> pb.ActivityResponse:
    """The outcome of an activity that ended with `error`."""
    return pb.ActivityResponse(
        instanceId=request.workflowInstance.instanceId,
        taskId=request.taskId,
        failureDetails=pb.new_failure_details(error),
    )


def _outcome_event(task: ActivityTask, outcome: pb.ActivityResponse, now: float) -> pb.HistoryEvent:
    task_id, execution_id = task.scheduled.eventId, task.scheduled.taskScheduled.taskExecutionId
    if outcome.HasField("failureDetails"):
        failure = outcome.failureDetails
        log.info("activity_failed", extra={**_ids(task), "error_type": failure.errorType})
        failed = pb.TaskFailedEvent(taskScheduledId=task_id, failureDetails=failure, taskExecutionId=execution_id)
        return event_at(timestamp_of(now), taskFailed=failed)
    result = optional(outcome, "result")
    completed = pb.TaskCompletedEvent(taskScheduledId=task_id, result=result, taskExecutionId=execution_id)
    return event_at(timestamp_of(now), taskCompleted=completed)


def _ids(task: ActivityTask) -> dict[str, str | int]:
    return {
        "app_id": task.app_id,
        "instance_id": task.owner[1],
        "activity": task.scheduled.taskScheduled.name,
        "task_id": task.scheduled.eventId,
    }
