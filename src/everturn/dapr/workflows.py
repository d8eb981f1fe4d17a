"""Workflows as the services use them, and the one place that knows the gRPC errors of the SDK's client.

The embedded runtime's client is the SDK's too, over an in-process stub. What its errors mean: durabletask-go's backend,
and what Dapr 1.18.0 was seen to answer.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import grpc
from dapr.ext.workflow import WorkflowRuntime, WorkflowStatus
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.workflow_management import WorkflowHistoryEvent
from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.dapr.client import SidecarClient
from everturn.dapr.wire import Transport
from everturn.errors import TransientError

T = TypeVar("T")

_ENDED = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED})
# A read takes about as long as the write that it falls into.
_READS = 10
# Seconds. Dapr keeps the call waiting for as long as its state store is away.
_START_WITHIN_S = 30.0


def has_ended(workflow: WorkflowState) -> bool:
    return workflow.runtime_status in _ENDED


def has_not_begun(workflow: WorkflowState | None) -> bool:
    """Whether it is there and has not run yet."""
    return workflow is not None and workflow.runtime_status is WorkflowStatus.PENDING


class Sidecar(Protocol):
    """What a composition root hands to a service: its sidecar, real or embedded."""

    @property
    def transport(self) -> Transport:
        """The sidecar's HTTP API."""
        ...

    @property
    def client(self) -> SidecarClient:
        """Its state, messages, invocation and secrets."""
        ...

    @property
    def workflows(self) -> DaprWorkflowClient:
        """The sidecar's workflow API. To be used in the service's loop, after `start`."""
        ...

    async def start(self, worker: WorkflowRuntime) -> None:
        """Begin to run the workflows and activities registered on `worker`.

        Activities that are coroutines run in the service's own loop. Returns when work can be received.
        """
        ...

    async def stop(self) -> None:
        """Stop taking work; what runs may finish or is left to be run again after the next start."""
        ...


class Workflows:
    """Starts, watches and steers instances. Raises TransientError (kind `workflow_engine`) if the engine is away.

    Steering an instance that there is not, or that has ended, does nothing.
    """

    def __init__(self, client: DaprWorkflowClient, *, start_within_s: float = _START_WITHIN_S) -> None:
        self._client = client
        self._start_within_s = start_within_s

    async def start(self, name: str, instance_id: str, given: Any) -> bool:
        """Start an instance; False if it runs already. Durable when it returns.

        If that takes too long it raises TransientError, and the instance may start all the same.
        """

        async def start() -> bool:
            try:
                async with asyncio.timeout(self._start_within_s):
                    await self._client.schedule_new_workflow(name, input=given, instance_id=instance_id)
            except TimeoutError:
                sentence = f"the workflow engine did not start a workflow within {self._start_within_s:g} s"
                raise TransientError(sentence, kind="workflow_engine") from None
            return True

        return await _call(start, unless=_already_runs, otherwise=False)

    async def state(self, instance_id: str) -> WorkflowState | None:
        """Where the instance stands; None if there is none."""
        return await _call(lambda: self._client.get_workflow_state(instance_id, fetch_payloads=True))

    async def history(self, instance_id: str) -> list[WorkflowHistoryEvent]:
        """The instance's history; empty if there is none (any more)."""
        return await _call(lambda: self._client.get_workflow_history(instance_id), otherwise=[])

    async def wait(self, instance_id: str, seconds: int) -> bool:
        """Whether the instance has ended within so many seconds; also waits for one that is still to be started."""

        async def wait() -> bool:
            try:
                await self._client.wait_for_workflow_completion(
                    instance_id, fetch_payloads=False, timeout_in_seconds=seconds
                )
            except TimeoutError:
                return False
            return True

        return await _call(wait)

    async def raise_event(self, instance_id: str, name: str) -> None:
        await _call(lambda: self._client.raise_workflow_event(instance_id, name), otherwise=None)

    async def pause(self, instance_id: str) -> None:
        await _call(lambda: self._client.pause_workflow(instance_id), otherwise=None)

    async def resume(self, instance_id: str) -> None:
        await _call(lambda: self._client.resume_workflow(instance_id), otherwise=None)

    async def purge(self, instance_id: str) -> None:
        await _call(lambda: self._client.purge_workflow(instance_id), otherwise=None)

    async def ended_before(self, moment: datetime) -> AsyncIterator[str]:
        """The ids of this app's instances that ended before `moment`. They may be purged meanwhile."""

        async def list_all() -> list[str]:
            return [instance_id async for instance_id in self._client.iter_workflow_instance_ids()]

        for instance_id in await _call(list_all):
            state = await self.state(instance_id)
            # The SDK gives naive times in UTC.
            if state is not None and has_ended(state) and state.last_updated_at.replace(tzinfo=UTC) < moment:
                yield instance_id


_RAISED: Any = object()


def _already_runs(error: grpc.RpcError) -> bool:
    return error.code() == grpc.StatusCode.ALREADY_EXISTS or "already exists" in (error.details() or "")


def _is_missing(error: grpc.RpcError) -> bool:
    return error.code() == grpc.StatusCode.NOT_FOUND or "no such instance" in (error.details() or "")


async def _call(
    call: Callable[[], Awaitable[T]],
    *,
    unless: Callable[[grpc.RpcError], bool] = _is_missing,
    otherwise: T = _RAISED,
) -> T:
    """The result of `call`, made again if it fell into a write of its instance; `otherwise` if `unless` knows why not.

    Dapr reads the keys of an instance one after the other, without the workflow's lock, and if they do not fit
    together it says UNKNOWN (pkg/runtime/wfengine/state/state.go of 1.18.0; seen on Redis).
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await call()
        except grpc.RpcError as error:
            if "missing from state store" in (error.details() or "") and tries < _READS:
                continue
            if otherwise is not _RAISED and unless(error):
                return otherwise
            code = error.code()
            sentence = f"the workflow engine answered {code.name if code else 'nothing'}"
            raise TransientError(sentence, kind="workflow_engine") from error
