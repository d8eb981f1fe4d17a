"""The part of the SDK's asyncio workflow client that the services use, as a protocol.

`dapr.ext.workflow.aio.DaprWorkflowClient` is one; so is the embedded runtime's (it is that class over an in-process
stub). Semantics: https://docs.dapr.io/reference/api/workflow_api/ and the SDK's docstrings.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.workflow_management import WorkflowHistoryEvent
from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.sidecar.wire import Transport


class WorkflowClient(Protocol):
    async def schedule_new_workflow(
        self,
        workflow: str,
        *,
        input: Any = None,  # noqa: A002 - the SDK's name
        instance_id: str | None = None,
    ) -> str: ...

    async def get_workflow_state(self, instance_id: str, *, fetch_payloads: bool = True) -> WorkflowState | None: ...

    async def wait_for_workflow_completion(
        self, instance_id: str, *, fetch_payloads: bool = True, timeout_in_seconds: int = 0
    ) -> WorkflowState | None: ...

    async def raise_workflow_event(self, instance_id: str, event_name: str, *, data: Any = None) -> None: ...

    async def terminate_workflow(self, instance_id: str, *, output: Any = None, recursive: bool = True) -> None: ...

    async def pause_workflow(self, instance_id: str) -> None: ...

    async def resume_workflow(self, instance_id: str) -> None: ...

    async def purge_workflow(self, instance_id: str, recursive: bool = True) -> None: ...

    async def get_workflow_history(self, instance_id: str) -> list[WorkflowHistoryEvent]: ...

    def iter_workflow_instance_ids(self, *, page_size: int = 1024) -> AsyncIterator[str]: ...


class Sidecar(Protocol):
    """What a composition root hands to a service: its sidecar, real or embedded."""

    @property
    def transport(self) -> Transport:
        """The sidecar's HTTP API."""
        ...

    @property
    def workflows(self) -> WorkflowClient:
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
