"""The embedded runtime as a composition root uses it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import apsw
import pytest
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.workflow_state import WorkflowStatus

from everturn.dapr.client import DaprClient, Save
from everturn.dapr.wire import AsgiTransport, Request
from everturn.errors import StartError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.testing.clock import ManualClock
from tests.unit.runtime.conftest import PATIENCE_S, ScriptedApp, subscription

OpenRuntime = Callable[..., Awaitable[EmbeddedRuntime]]


@pytest.fixture
async def open_runtime(tmp_path: Path) -> AsyncIterator[OpenRuntime]:
    """Opens a runtime in the test's data folder."""
    async with AsyncExitStack() as stack:

        async def open_one(**options: Any) -> EmbeddedRuntime:
            runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions(**options))
            stack.push_async_callback(lambda: runtime.stop(1))
            return runtime

        yield open_one


def echo_worker() -> WorkflowRuntime:
    worker = WorkflowRuntime()

    async def shout(_: WorkflowActivityContext, text: str) -> str:
        return text.upper()

    def echo(context: DaprWorkflowContext, text: str) -> Iterator[Any]:
        answer = yield context.call_activity("shout", input=text)
        return answer

    worker.register_workflow(echo, name="echo")
    worker.register_activity(shout, name="shout")
    return worker


async def test_an_app_keeps_state_through_its_sidecar(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime()
    client = DaprClient(runtime.add_app("chat", ScriptedApp()).transport)

    await client.save_state(Save("k", 1))

    found = await client.get_state("k")
    assert found is not None
    assert found.value == 1


async def test_an_app_runs_workflows_through_its_sidecar(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime()
    sidecar = runtime.add_app("chat", ScriptedApp())
    await sidecar.start(echo_worker())
    await runtime.start()

    await sidecar.workflows.schedule_new_workflow("echo", input="hi", instance_id="i")
    state = await sidecar.workflows.wait_for_workflow_completion("i", timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert (state.runtime_status, state.serialized_output) == (WorkflowStatus.COMPLETED, '"HI"')
    await sidecar.stop()


async def test_an_unfinished_workflow_is_resumed_by_the_next_runtime(open_runtime: OpenRuntime) -> None:
    before = await open_runtime()
    await before.add_app("chat", ScriptedApp()).workflows.schedule_new_workflow("echo", input="hi", instance_id="i")
    await before.stop(1)

    after = await open_runtime()
    sidecar = after.add_app("chat", ScriptedApp())
    await sidecar.start(echo_worker())
    state = await sidecar.workflows.wait_for_workflow_completion("i", timeout_in_seconds=PATIENCE_S)

    assert (before.engine.resumed, after.engine.resumed) == (0, 1)
    assert state is not None
    assert state.serialized_output == '"HI"'
    await sidecar.stop()


async def test_one_app_publishes_and_another_gets_it(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime(app_api_token="of-the-apps")
    memory = ScriptedApp([subscription("conversations")])
    runtime.add_app("memory", memory)
    chat = DaprClient(runtime.add_app("chat", ScriptedApp()).transport)
    await runtime.start()

    await chat.publish("pubsub", "conversations", {"id": "turn-1", "data": {}})

    (request,) = await memory.got(1)
    assert json.loads(request.body)["id"] == "turn-1"
    assert request.headers["dapr-api-token"] == "of-the-apps"


async def test_an_app_that_has_stopped_gets_no_message(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime()
    memory = ScriptedApp([subscription("conversations")])
    sidecar = runtime.add_app("memory", memory)
    chat = DaprClient(runtime.add_app("chat", ScriptedApp()).transport)
    await runtime.start()
    await runtime.broker.subscribed("memory")

    await sidecar.stop()
    await chat.publish("pubsub", "conversations", {"id": "turn-1", "data": {}})
    await chat.save_state(Save("a later write", 1))

    assert memory.received == []
    assert runtime.broker.store.pending() == 1


async def test_a_folder_that_another_runtime_has_is_refused(open_runtime: OpenRuntime) -> None:
    await open_runtime()

    with pytest.raises(StartError, match=f"in use by process {os.getpid()}"):
        await open_runtime()


async def test_a_stopped_runtime_frees_its_folder(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime()

    await runtime.stop(1)

    await open_runtime()


async def test_a_damaged_database_is_refused_and_the_folder_freed(open_runtime: OpenRuntime, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "everturn.db").write_bytes, b"no database" * 1000)

    with pytest.raises(StartError, match=r"everturn\.db"):
        await open_runtime()

    await asyncio.to_thread((tmp_path / "everturn.db").unlink)
    await open_runtime()


async def test_a_wrong_component_folder_is_refused(open_runtime: OpenRuntime, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no folder"):
        await open_runtime(components_dir=tmp_path / "nothing")


async def test_expired_state_is_swept_while_it_runs(open_runtime: OpenRuntime, tmp_path: Path) -> None:
    clock = ManualClock()
    runtime = await open_runtime(clock=clock)
    client = DaprClient(runtime.add_app("chat", ScriptedApp()).transport)
    await runtime.start()
    await client.save_state(Save("k", 1, ttl_s=10))

    async with asyncio.timeout(PATIENCE_S):
        while clock.next_alarm_in_s is None:  # until the sweep at the start is over
            await client.save_state(Save("other", 0))

    clock.advance(3600)
    for _ in range(10):  # the sweep's own write goes before one of these
        await client.save_state(Save("other", 1))

    with apsw.Connection(str(tmp_path / "everturn.db")) as reader:
        assert reader.execute("SELECT key FROM state").fetchall() == [("chat||other",)]


async def test_the_sidecar_of_an_app_in_another_process_asks_for_its_token(open_runtime: OpenRuntime) -> None:
    runtime = await open_runtime(api_token="secret")
    stranger = AsgiTransport(runtime.serve_app("chat", ScriptedApp()).http)

    refused = await stranger.send(Request("GET", "/v1.0/metadata"))
    allowed = await stranger.send(Request("GET", "/v1.0/metadata", {"dapr-api-token": "secret"}))

    assert (refused.status, json.loads(allowed.body)["id"]) == (401, "chat")


def test_options_do_not_show_their_tokens() -> None:
    shown = repr(RuntimeOptions(app_api_token="canary-1", api_token="canary-2"))

    assert "canary" not in shown
