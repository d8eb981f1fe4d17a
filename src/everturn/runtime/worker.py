"""Who runs workflow code and activities. `LocalWorker` does it in this process, in the service's own loop."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from everturn.runtime.sdk import (
    ActivityRequest,
    Execution,
    HistoryEvent,
    PropagatedHistory,
    Registered,
    Replay,
    TaskFailureDetails,
    WorkflowRuntime,
    new_failure_details,
)


@dataclass(frozen=True, slots=True)
class WorkflowRequest:
    """A turn for a worker: replay `past_events`, then take `new_events`. Neither may be changed or kept."""

    instance_id: str
    execution_id: str
    past_events: Sequence[HistoryEvent]
    new_events: Sequence[HistoryEvent]
    propagated: PropagatedHistory | None = None


@dataclass(frozen=True, slots=True)
class ActivityOutcome:
    """`result` is JSON or None; `failure` is not None where the activity failed."""

    result: str | None = None
    failure: TaskFailureDetails | None = None


# More workflows than this are replayed: a suspended generator and its frames take memory.
_MAX_WARM = 1_000
_LAST_ACTIONS = frozenset({"completeWorkflow", "workflowVersionNotAvailable"})
# What waits for time alone may do so for hours, and is cheap to replay.
_TIMERS_ALONE = {"createTimer"}


class Worker(Protocol):
    """An app's worker, here or behind a stream. At most one turn of an instance is out at a time."""

    async def run_workflow(self, request: WorkflowRequest) -> Replay:
        """Replay a workflow.

        Raises TransientError (kind `worker_lost`) where no answer will come; the turn is then sent out again.
        """
        ...

    async def run_activity(self, request: ActivityRequest) -> ActivityOutcome:
        """Run an activity to its end; its own errors are an outcome.

        Raises TransientError (kind `worker_lost`) where no answer will come; it is then sent out again.
        """
        ...

    def close(self) -> None:
        """Let go of threads. Called once, after the last request."""
        ...


@dataclass(frozen=True, slots=True)
class _Warm:
    """A workflow as it stands after so many events of its history, the last of which was `last_event`."""

    execution: Execution
    event_count: int
    last_event: HistoryEvent

    def stands_in(self, history: Sequence[HistoryEvent]) -> bool:
        """Whether the turn that it took is the one that was committed: that very event is in the history."""
        return len(history) >= self.event_count and history[self.event_count - 1] is self.last_event


class LocalWorker:
    """Runs what is registered on a `WorkflowRuntime`: turns and coroutine activities in the loop, others in threads.

    Workflows are kept warm between their turns, so that a turn costs what is new and not the whole history; what was
    dropped, or took a turn that was not committed, is replayed.
    """

    def __init__(self, runtime: WorkflowRuntime) -> None:
        self._registered = Registered(runtime)
        self._warm: OrderedDict[tuple[str, str], _Warm] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None

    async def run_workflow(self, request: WorkflowRequest) -> Replay:
        name = (request.instance_id, request.execution_id)
        warm = self._warm.pop(name, None)
        past_events, new_events = request.past_events, request.new_events
        if warm is not None and warm.stands_in(past_events):
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

    async def run_activity(self, request: ActivityRequest) -> ActivityOutcome:
        try:
            if self._registered.is_coroutine_activity(request.name):
                return ActivityOutcome(await self._registered.await_activity(request))
            run = asyncio.get_running_loop().run_in_executor
            return ActivityOutcome(await run(self._thread_pool(), self._registered.run_activity, request))
        except Exception as error:  # noqa: BLE001 - an activity's failure is its workflow's business
            return ActivityOutcome(failure=new_failure_details(error))

    def close(self) -> None:
        self._warm.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _thread_pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._registered.thread_count, "everturn-activity")
        return self._threads
