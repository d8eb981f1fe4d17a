"""Activities under way: each is run by its app's worker, once at a time, and its outcome goes to its instance."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from everturn.errors import TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.engine.events import event_at, timestamp_of
from everturn.runtime.instances import InstanceId
from everturn.runtime.sdk import (
    ActivityRequest,
    HistoryEvent,
    PropagatedHistory,
    StringValue,
    TaskCompletedEvent,
    TaskFailedEvent,
    WorkflowInstance,
    new_failure_details,
)
from everturn.runtime.worker import ActivityOutcome, Worker

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class ActivityTask:
    """An activity to run at `app_id`: whose it is, and its taskScheduled."""

    owner: InstanceId
    key: int
    execution_id: str
    app_id: str
    scheduled: HistoryEvent
    propagated: PropagatedHistory | None = None


Finish = Callable[[ActivityTask, HistoryEvent], Awaitable[None]]


class Activities:
    """Runs activities until `stop`; one that was left unfinished is still on disk, for the next start."""

    def __init__(self, clock: Clock, workers: Mapping[str, Worker], finish: Finish) -> None:
        self._clock = clock
        self._workers = workers
        self._finish = finish
        self._running: dict[tuple[int, str, int], tuple[str, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def run(self, task: ActivityTask) -> None:
        """Start an activity, unless it is running already; without a worker for it, it waits on disk for one."""
        running = (task.key, task.execution_id, task.scheduled.eventId)
        if task.app_id not in self._workers:
            log.warning("activity_waits_for_app", extra=_ids(task))
        elif running not in self._running:
            started = asyncio.get_running_loop().create_task(self._run(task, running))
            self._running[running] = (task.app_id, started)

    async def stop(self, app_id: str, limit_s: float) -> None:
        """Let what runs for the app finish within `limit_s` seconds, and cancel the rest."""
        tasks = [started for runs_at, started in self._running.values() if runs_at == app_id]
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

    async def _outcome(self, task: ActivityTask) -> HistoryEvent | None:
        outcome, failures = None, 0
        while outcome is None:
            worker = self._workers.get(task.app_id)
            if worker is None:
                return None
            try:
                outcome = await worker.run_activity(_request(task))
            except TransientError as error:
                log.warning("activity_lost", extra={**_ids(task), "kind": error.kind})
                await asyncio.sleep(retry_delay_s(failures))
                failures += 1
            except asyncio.CancelledError as error:
                current = asyncio.current_task()
                if current is None or current.cancelling():
                    raise
                # The activity's own code let a cancellation through: that is a failure like any other.
                outcome = ActivityOutcome(failure=new_failure_details(error))
        return _outcome_event(task, outcome, self._clock.now())


def retry_delay_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row of the disk or of a worker."""
    return min(_FIRST_RETRY_S * 2.0 ** min(failures, 10), _LAST_RETRY_S)


def _request(task: ActivityTask) -> ActivityRequest:
    scheduled = task.scheduled.taskScheduled
    return ActivityRequest(
        name=scheduled.name,
        version=scheduled.version if scheduled.HasField("version") else None,
        input=scheduled.input if scheduled.HasField("input") else None,
        workflowInstance=WorkflowInstance(instanceId=task.owner[1], executionId=StringValue(value=task.execution_id)),
        taskId=task.scheduled.eventId,
        taskExecutionId=scheduled.taskExecutionId,
        propagatedHistory=task.propagated,
    )


def _outcome_event(task: ActivityTask, outcome: ActivityOutcome, now: float) -> HistoryEvent:
    task_id = task.scheduled.eventId
    execution_id = task.scheduled.taskScheduled.taskExecutionId
    if outcome.failure is not None:
        log.info("activity_failed", extra={**_ids(task), "error_type": outcome.failure.errorType})
        failed = TaskFailedEvent(taskScheduledId=task_id, failureDetails=outcome.failure, taskExecutionId=execution_id)
        return event_at(timestamp_of(now), taskFailed=failed)
    result = None if outcome.result is None else StringValue(value=outcome.result)
    completed = TaskCompletedEvent(taskScheduledId=task_id, result=result, taskExecutionId=execution_id)
    return event_at(timestamp_of(now), taskCompleted=completed)


def _ids(task: ActivityTask) -> dict[str, str | int]:
    return {
        "app_id": task.app_id,
        "instance_id": task.owner[1],
        "activity": task.scheduled.taskScheduled.name,
        "task_id": task.scheduled.eventId,
    }
