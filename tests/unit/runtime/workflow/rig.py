"""A workflow engine over a real SQLite file, driven through the SDK's own client and registrations."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.workflow_state import WorkflowState

from everturn.runtime.database.database import Database
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.testing.clock import ManualClock

# How long a test waits for what must happen; it never passes by waiting.
PATIENCE_S = 20

Registered = Callable[..., Any]


class Rig:
    """An engine that can be stopped or dropped, and opened again on the same file.

    Workflows and activities are registered by the names of their functions, again at each start, as a process does.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "everturn.db"
        self.clock = ManualClock()
        self.workflows: list[Registered] = []
        self.activities: list[Registered] = []
        self.database: Database
        self.engine: WorkflowEngine
        self.client: DaprWorkflowClient

    def workflow(self, function: Registered) -> Registered:
        self.workflows.append(function)
        return function

    def activity(self, function: Registered) -> Registered:
        self.activities.append(function)
        return function

    def runtime(self) -> WorkflowRuntime:
        runtime = WorkflowRuntime()
        for function in self.workflows:
            runtime.register_workflow(_fresh(function), name=function.__name__)
        for function in self.activities:
            runtime.register_activity(_fresh(function), name=function.__name__)
        return runtime

    async def open(self, *, worker: bool = True, database: Database | None = None) -> "Rig":
        self.database = database or await Database.open(self.path)
        self.engine = WorkflowEngine(self.database, clock=self.clock)
        await self.engine.start()
        self.client = self.engine.client("app")
        if worker:
            self.engine.register("app", self.runtime())
        return self

    async def close(self) -> None:
        await self.engine.stop(limit_s=0)
        await self.database.close()

    async def reopen(self, *, worker: bool = True) -> None:
        await self.close()
        await self.open(worker=worker)

    async def start(self, name: str, argument: Any = None, instance_id: str | None = None) -> str:
        scheduled = self.client.schedule_new_workflow(name, input=argument, instance_id=instance_id)
        async with asyncio.timeout(PATIENCE_S):
            return str(await scheduled)

    async def ended(self, instance_id: str) -> WorkflowState:
        state = await self.client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)
        assert state is not None
        return state

    async def run(self, name: str, argument: Any = None) -> WorkflowState:
        return await self.ended(await self.start(name, argument))

    async def status(self, instance_id: str) -> str:
        state = await self.client.get_workflow_state(instance_id)
        assert state is not None
        return str(state.runtime_status.name)

    async def history(self, instance_id: str) -> list[str]:
        return [event.event_type.name for event in await self.client.get_workflow_history(instance_id)]


def _fresh(function: Registered) -> Registered:
    """The function without the marks that the SDK leaves on what was registered once."""
    for mark in ("_workflow_registered", "_activity_registered", "_dapr_alternate_name"):
        function.__dict__.pop(mark, None)
    return function


async def until(condition: Callable[[], bool]) -> None:
    """Go on with the loop until `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any change in the loop may be the one
            await asyncio.sleep(0)
