"""The floor under a turn, as routes of the chat service's own process: its workflow alone, and what a turn must add.

`/bench/bare` runs a workflow of three activities that do nothing; `/bench/floor` one that besides makes the two
invocations of a turn and its state writes. Both begin and are waited for as a turn is, on the same sidecar and worker.
"""

import asyncio
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI, Request, Response

from benchmarks.scripted import REPLY
from everturn.chat.app import ChatParts, app_over
from everturn.contracts.events import MEMORY_APP_ID
from everturn.contracts.fields import new_id
from everturn.dapr.client import DaprClient, Save
from everturn.dapr.wire import Transport
from everturn.dapr.workflows import Sidecar
from everturn.settings import Settings

BARE, FLOOR = "bench_bare", "bench_floor"
_STEPS = ("fetch", "generate", "save")
_WAIT_S = 60
# About what a session's key and a claim hold beside the message.
_SESSION = {"user_id": "u" * 32, "next_sequence": 2, "queue": [{"turn_id": "t" * 36, "sequence": 1}]}


@dataclass(frozen=True, slots=True)
class WithFloor:
    """A sidecar whose worker has the workflows of the floor as well."""

    sidecar: Sidecar

    @property
    def transport(self) -> Transport:
        return self.sidecar.transport

    @property
    def client(self) -> DaprClient:
        return DaprClient(self.transport)

    @property
    def workflows(self) -> DaprWorkflowClient:
        return self.sidecar.workflows

    async def start(self, worker: WorkflowRuntime) -> None:
        _register(worker, DaprClient(self.transport))
        await self.sidecar.start(worker)

    async def stop(self) -> None:
        await self.sidecar.stop()


def chat_app_with_floor(settings: Settings, parts: ChatParts) -> FastAPI:
    """The chat service, and routes that take a message as `POST /chat/` does and answer when the workflow has ended."""
    app, sidecar = app_over(settings, parts), parts.sidecar
    dapr, workflows = DaprClient(sidecar.transport), sidecar.workflows

    async def bare(request: Request) -> Response:
        message = json.loads(await request.body())
        return await _run(workflows, BARE, new_id(), message["metadata"]["session_id"])

    async def floor(request: Request) -> Response:
        message = json.loads(await request.body())
        session, turn_id = message["metadata"]["session_id"], new_id()
        await dapr.save_state(Save(f"claim:{turn_id}", {"turn_id": turn_id, **message}, first_write=True))
        await dapr.transact([_record(turn_id, message, {}), _session(turn_id)])
        return await _run(workflows, FLOOR, turn_id, session)

    app.add_api_route("/bench/bare", bare, methods=["POST"])
    app.add_api_route("/bench/floor", floor, methods=["POST"])
    return app


async def _run(workflows: DaprWorkflowClient, workflow: str, instance_id: str, session: str) -> Response:
    given = {"turn_id": instance_id, "session_id": session}
    await workflows.schedule_new_workflow(workflow, input=given, instance_id=instance_id)
    state = await workflows.wait_for_workflow_completion(instance_id, fetch_payloads=False, timeout_in_seconds=_WAIT_S)
    done = state is not None and state.runtime_status.name == "COMPLETED"
    return Response(b'{"status":"completed"}', 200 if done else 500, media_type="application/json")


def _register(worker: WorkflowRuntime, dapr: DaprClient) -> None:
    def bare(ctx: DaprWorkflowContext, given: dict[str, str]) -> Generator[Any, Any, None]:
        for step in _STEPS:
            yield ctx.call_activity(f"{BARE}_{step}", input=given)

    def floor(ctx: DaprWorkflowContext, given: dict[str, str]) -> Generator[Any, Any, None]:
        for step in _STEPS:
            yield ctx.call_activity(f"{FLOOR}_{step}", input=given)

    async def nothing(_: WorkflowActivityContext, _given: dict[str, str]) -> None:
        return

    async def fetch(_: WorkflowActivityContext, given: dict[str, str]) -> None:
        session = quote(given["session_id"], safe="")
        window = f"conversations/{session}?window_chars=32000&user_id={session}"
        memory, history = await asyncio.gather(
            dapr.invoke(MEMORY_APP_ID, "GET", f"memories/{session}"), dapr.invoke(MEMORY_APP_ID, "GET", window)
        )
        context = {"memory": json.loads(memory.body), "history": json.loads(history.body)}
        await dapr.save_state(_record(given["turn_id"], given, {"context": context}))

    async def generate(_: WorkflowActivityContext, given: dict[str, str]) -> None:
        await dapr.save_state(_record(given["turn_id"], given, {"reply": REPLY}))

    async def save(_: WorkflowActivityContext, given: dict[str, str]) -> None:
        ended = _record(given["turn_id"], given, {"reply": REPLY, "outcome": "completed"})
        await dapr.transact([ended, _session(given["turn_id"])])

    worker.register_workflow(bare, name=BARE)
    worker.register_workflow(floor, name=FLOOR)
    for step, activity in zip(_STEPS, (fetch, generate, save), strict=True):
        worker.register_activity(activity, name=f"{FLOOR}_{step}")
        worker.register_activity(_copy(nothing), name=f"{BARE}_{step}")


def _copy(activity: Any) -> Any:
    """A function of its own: the SDK marks what it registers."""

    async def copied(ctx: WorkflowActivityContext, given: dict[str, str]) -> None:
        await activity(ctx, given)

    return copied


def _record(turn_id: str, message: Mapping[str, Any], more: Mapping[str, Any]) -> Save:
    return Save(f"bench-turn:{turn_id}", {"turn_id": turn_id, **message, **more})


def _session(turn_id: str) -> Save:
    """Each turn of the floor writes a session of its own: nothing waits for another."""
    return Save(f"bench-session:{turn_id}", _SESSION)
