"""The SDK's threaded worker, beside a real sidecar: what we change in it, and how it is started and stopped.

It runs coroutine activities in a loop of its own thread. A service's activities belong in the service's loop, where its
clients and locks live: `bridge_coroutines` puts a bridge before each of them. And it fails workflows over a pause or a
resume that comes at the wrong moment: `patch_suspend_resume`.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from types import FunctionType, MethodType
from typing import Any, Protocol

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.shared import is_async_callable
from dapr.ext.workflow._durabletask.worker import _OrchestrationExecutor
from dapr.ext.workflow.aio import DaprWorkflowClient

log = logging.getLogger(__name__)

# Between two tries to start a worker that ended before its stream to the sidecar was open.
_RESTART_DELAY_S = 1.0
_JOIN_S = 0.2


def bridge_coroutines(worker: WorkflowRuntime, loop: asyncio.AbstractEventLoop) -> None:
    """Let each coroutine activity registered on `worker` run in `loop`. Plain ones stay in the worker's threads."""
    activities = worker._WorkflowRuntime__worker._registry.activities  # noqa: SLF001 - see the package's docstring
    for name, activity in list(activities.items()):
        if is_async_callable(activity):
            activities[name] = _bridge(activity, loop)


def _bridge(activity: Callable[..., Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any) -> Any:
        return await activity(*arguments)

    async def bridged(*arguments: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(*arguments), loop))

    return bridged


# What Dapr writes down of a workflow's own decisions.
_DECISIONS = frozenset({"taskScheduled", "timerCreated", "childWorkflowInstanceCreated"})


class SuspendableExecutor(_OrchestrationExecutor):  # type: ignore[misc]
    """The SDK's executor, but two things do no harm over which that one would fail a workflow.

    A resume of a workflow that is not suspended: Dapr 1.18 hands it on. Two clients that resume at once are enough, and
    nothing that a client of workflows can ask keeps them apart.

    A suspension that comes in one work item with what makes the workflow decide something. The SDK puts off all that
    follows it in the history, also what that work item decided, and decides it again in the next.
    """

    _is_suspended: bool

    def process_event(self, ctx: Any, event: Any) -> None:
        kind = event.WhichOneof("eventType")
        if self._is_suspended and kind in _DECISIONS:
            self._is_suspended = False
            super().process_event(ctx, event)
            self._is_suspended = True
        elif self._is_suspended or kind != "executionResumed":
            super().process_event(ctx, event)


def patch_suspend_resume(worker: WorkflowRuntime) -> None:
    """Let this worker, and no other, run its workflows with `SuspendableExecutor`.

    The SDK names its executor in one method: the worker gets a copy of it in which that name means another class.
    """
    inner = worker._WorkflowRuntime__worker  # noqa: SLF001 - see the package's docstring
    execute = type(inner)._execute_orchestrator  # noqa: SLF001
    names = {**execute.__globals__, _OrchestrationExecutor.__name__: SuspendableExecutor}
    copy = FunctionType(execute.__code__, names, execute.__name__, execute.__defaults__, execute.__closure__)
    inner._execute_orchestrator = MethodType(copy, inner)  # noqa: SLF001


async def close_client(client: DaprWorkflowClient) -> None:
    """Close the channel of the SDK's asyncio client, which has no method of its own for that."""
    await client._DaprWorkflowClient__obj.aclose()  # noqa: SLF001 - see the package's docstring


class Stream(Protocol):
    """A stream of work. To cancel one that has ended does nothing."""

    def cancel(self) -> bool: ...


class _Ended:
    """The stream of a worker that has none now."""

    def cancel(self) -> bool:
        return False


class WorkerThread:
    """Starts the SDK's worker in a thread, since that blocks until the sidecar is there, and keeps trying."""

    def __init__(self, worker: WorkflowRuntime) -> None:
        self._worker = worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="everturn-worker-start", daemon=True)

    @property
    def is_connected(self) -> bool:
        """Whether the worker's stream to the sidecar is open."""
        return bool(self._worker._WorkflowRuntime__worker.is_worker_ready())  # noqa: SLF001 - see the docstring

    @property
    def stream(self) -> Stream:
        """The stream on which the worker gets its work now; it opens another if that is cancelled."""
        stream: Stream | None = self._worker._WorkflowRuntime__worker._response_stream  # noqa: SLF001 - see the docstring
        return stream or _Ended()

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Stop the worker, also one that still waits for its sidecar."""
        self._stopping.set()
        while True:  # a shutdown that comes before the start does nothing
            shut_down = await asyncio.to_thread(self._shut_down)
            await asyncio.to_thread(self._thread.join, _JOIN_S)
            if shut_down and not self._thread.is_alive():
                return

    def _shut_down(self) -> bool:
        """Whether the worker took it: it names its loop's thread before it starts it, and then joins in vain."""
        is_starting = self._thread.is_alive()
        try:
            self._worker.shutdown()
        except RuntimeError:
            if not is_starting:
                raise
            log.debug("worker_still_starting")
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._worker.start()
            except Exception as error:  # the loop's edge; that it was stopped is an exception of the SDK too
                level = logging.DEBUG if self._stopping.is_set() else logging.WARNING
                log.log(level, "worker_not_started", exc_info=True, extra={"reason": type(error).__name__})
                self._stopping.wait(_RESTART_DELAY_S)
            else:
                log.info("worker_started")
                return
