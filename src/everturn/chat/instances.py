"""The workflow instances of turns: starting, watching and steering them through the SDK's client."""

from collections.abc import AsyncIterator, Awaitable
from datetime import datetime

import grpc
from dapr.ext.workflow.workflow_management import WorkflowHistoryEvent
from dapr.ext.workflow.workflow_state import WorkflowState, WorkflowStatus
from pydantic import BaseModel

from everturn.chat.policies import Policies
from everturn.chat.records import TurnRecord
from everturn.chat.story import CANCEL_EVENT, TurnInput
from everturn.chat.turn import CHAT_WORKFLOW
from everturn.sidecar.ended_workflows import ended_before
from everturn.sidecar.workflow_errors import already_runs, is_missing, read_whole, sorted_workflow_errors
from everturn.sidecar.workflows import WorkflowClient

_ENDED = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED})


def has_ended(workflow: WorkflowState) -> bool:
    return workflow.runtime_status in _ENDED


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
        with sorted_workflow_errors():
            try:
                await self._workflows.schedule_new_workflow(
                    name, input=given.model_dump(mode="json"), instance_id=instance_id
                )
            except grpc.RpcError as error:
                if not already_runs(error):
                    raise

    async def state(self, instance_id: str) -> WorkflowState | None:
        """Where the instance stands; None where there is none."""
        with sorted_workflow_errors():
            return await read_whole(lambda: self._workflows.get_workflow_state(instance_id, fetch_payloads=True))

    async def history(self, instance_id: str) -> list[WorkflowHistoryEvent]:
        """The instance's history; empty where there is none (any more)."""
        with sorted_workflow_errors():
            try:
                return await read_whole(lambda: self._workflows.get_workflow_history(instance_id))
            except grpc.RpcError as error:
                if is_missing(error):
                    return []
                raise

    async def wait(self, instance_id: str, seconds: int) -> bool:
        """Whether the instance has ended within so many seconds; also waits for one that is still to be started."""
        with sorted_workflow_errors():
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

    def ended_before(self, moment: datetime) -> AsyncIterator[str]:
        """The ids of this app's instances that ended before `moment`."""
        return ended_before(self._workflows, moment)

    async def purge(self, instance_id: str) -> None:
        await self._steer(self._workflows.purge_workflow(instance_id))

    async def _steer(self, call: Awaitable[None]) -> None:
        with sorted_workflow_errors():
            try:
                await call
            except grpc.RpcError as error:
                if not is_missing(error):
                    raise
