"""The workflow instances of turns: starting, watching and steering them through the SDK's client.

The one place where the sidecar's gRPC errors are sorted (codes and texts: Dapr's workflow engine, durabletask-go).
"""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager

import grpc
from dapr.ext.workflow.workflow_management import WorkflowHistoryEvent
from dapr.ext.workflow.workflow_state import WorkflowState
from pydantic import BaseModel

from everturn.chat.policies import Policies
from everturn.chat.records import TurnRecord
from everturn.chat.story import CANCEL_EVENT, TurnInput
from everturn.chat.turn import CHAT_WORKFLOW
from everturn.errors import TransientError
from everturn.sidecar.workflows import WorkflowClient


class TurnInstances:
    """Runs turns as workflow instances. Raises TransientError where the sidecar cannot be reached."""

    def __init__(self, workflows: WorkflowClient, policies: Policies) -> None:
        self._workflows = workflows
        self._policies = policies

    async def start(self, record: TurnRecord) -> None:
        """Start the workflow of this turn; nothing where it runs already. Returns once the start is durable."""
        turn = TurnInput(turn_id=record.turn_id, from_step=record.from_step, policies=self._policies)
        await self.start_workflow(CHAT_WORKFLOW, record.instance_id, turn)

    async def start_workflow(self, name: str, instance_id: str, given: BaseModel) -> None:
        """Start an instance of the workflow `name`; nothing where it runs already."""
        with _sorted_errors():
            try:
                await self._workflows.schedule_new_workflow(
                    name, input=given.model_dump(mode="json"), instance_id=instance_id
                )
            except grpc.RpcError as error:
                if not _already_runs(error):
                    raise

    async def state(self, instance_id: str) -> WorkflowState | None:
        """Where the instance stands; None where there is none."""
        with _sorted_errors():
            return await self._workflows.get_workflow_state(instance_id, fetch_payloads=True)

    async def history(self, instance_id: str) -> list[WorkflowHistoryEvent]:
        """The instance's history; empty where there is none (any more)."""
        with _sorted_errors():
            try:
                return await self._workflows.get_workflow_history(instance_id)
            except grpc.RpcError as error:
                if _is_missing(error):
                    return []
                raise

    async def wait(self, instance_id: str, seconds: int) -> bool:
        """Whether the instance has ended within so many seconds; also waits for one that is still to be started."""
        with _sorted_errors():
            try:
                await self._workflows.wait_for_workflow_completion(
                    instance_id, fetch_payloads=False, timeout_in_seconds=seconds
                )
            except TimeoutError:
                return False
        return True

    async def request_cancel(self, instance_id: str) -> None:
        """Tell a running turn to end; nothing where it has ended. A paused one is woken for it."""
        await self._steer(self._workflows.raise_workflow_event(instance_id, CANCEL_EVENT))
        await self._steer(self._workflows.resume_workflow(instance_id))

    async def pause(self, instance_id: str) -> None:
        await self._steer(self._workflows.pause_workflow(instance_id))

    async def resume(self, instance_id: str) -> None:
        await self._steer(self._workflows.resume_workflow(instance_id))

    async def ids(self) -> AsyncIterator[str]:
        """The ids of all instances of this app, running or ended."""
        with _sorted_errors():
            async for instance_id in self._workflows.iter_workflow_instance_ids():
                yield instance_id

    async def purge(self, instance_id: str) -> None:
        await self._steer(self._workflows.purge_workflow(instance_id))

    async def _steer(self, call: Awaitable[None]) -> None:
        with _sorted_errors():
            try:
                await call
            except grpc.RpcError as error:
                if not _is_missing(error):
                    raise


@contextmanager
def _sorted_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        raise TransientError(
            f"the workflow engine answered {code.name if code else 'nothing'}", kind="workflow_engine"
        ) from error


def _already_runs(error: grpc.RpcError) -> bool:
    """ALREADY_EXISTS; UNKNOWN with this text from Dapr 1.18.0."""
    return error.code() == grpc.StatusCode.ALREADY_EXISTS or "already exists" in (error.details() or "")


def _is_missing(error: grpc.RpcError) -> bool:
    return error.code() == grpc.StatusCode.NOT_FOUND or "no such instance" in (error.details() or "")
