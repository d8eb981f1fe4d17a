"""Dapr's own workflow API over HTTP. The answers are those that daprd 1.18 gave to the same requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from everturn.dapr.wire import Request, Response, Transport
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from tests.unit.runtime.conftest import PATIENCE_S, ScriptedApp

V1 = "/v1.0/workflows/dapr"


def worker() -> WorkflowRuntime:
    registered = WorkflowRuntime()

    def waits(context: DaprWorkflowContext, given: Any) -> Generator[Any, Any, Any]:
        context.set_custom_status("waiting")
        event = yield context.wait_for_external_event("go")
        return {"given": given, "event": event}

    def fails(_: DaprWorkflowContext, __: Any) -> None:
        raise ValueError("no luck")

    registered.register_workflow(waits, name="waits")
    registered.register_workflow(fails, name="fails")
    return registered


@dataclass
class Api:
    """A caller of the API, and the SDK's client to wait with."""

    transport: Transport
    client: DaprWorkflowClient

    async def post(self, path: str, body: bytes = b"") -> Response:
        return await self.transport.send(Request("POST", path, {}, body))

    async def start(self, workflow: str, instance: str, given: bytes = b"1") -> None:
        response = await self.post(f"{V1}/{workflow}/start?instanceID={instance}", given)
        assert response.status == 202

    async def state(self, instance: str, version: str = "v1.0") -> dict[str, Any]:
        response = await self.transport.send(Request("GET", f"/{version}/workflows/dapr/{instance}"))
        assert response.status == 200
        state: dict[str, Any] = json.loads(response.body)
        return state

    async def ended(self, instance: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.client.wait_for_workflow_completion(instance, timeout_in_seconds=PATIENCE_S)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions())
    sidecar = runtime.add_app("app", ScriptedApp())
    await sidecar.start(worker())
    await runtime.start()
    yield Api(sidecar.transport, sidecar.workflows)
    await sidecar.stop()
    await runtime.stop(1)


def fault(response: Response) -> tuple[int, str, str]:
    said = json.loads(response.body)
    return response.status, said["errorCode"], said["message"]


async def test_a_start_answers_with_the_id_that_was_asked_for(api: Api) -> None:
    response = await api.post(f"{V1}/waits/start?instanceID=ä-_1", b"1")

    assert (response.status, json.loads(response.body)) == (202, {"instanceID": "ä-_1"})
    assert response.headers["content-type"] == "application/json"


async def test_a_start_without_an_id_gets_a_new_one(api: Api) -> None:
    first = await api.post(f"{V1}/waits/start")
    second = await api.post(f"{V1}/waits/start")

    ids = {json.loads(response.body)["instanceID"] for response in (first, second)}
    assert len(ids) == 2
    assert {(await api.state(instance))["runtimeStatus"] for instance in ids} == {"RUNNING"}


async def test_the_body_is_the_input_and_that_of_an_event_its_data(api: Api) -> None:
    await api.start("waits", "one", b'{"q": 1}')

    response = await api.post(f"{V1}/one/raiseEvent/go", b"[1,2]")

    await api.ended("one")
    properties = (await api.state("one"))["properties"]
    assert (response.status, response.body) == (202, b"{}")
    assert json.loads(properties["dapr.workflow.output"]) == {"given": {"q": 1}, "event": [1, 2]}
    assert properties["dapr.workflow.input"] == '{"q": 1}'


async def test_an_instance_is_told_with_its_times_status_and_custom_status(api: Api) -> None:
    await api.start("waits", "one")

    state = await api.state("one")

    assert state.pop("createdAt").endswith("Z")
    assert state.pop("lastUpdatedAt").endswith("Z")
    assert state == {
        "instanceID": "one",
        "workflowName": "waits",
        "runtimeStatus": "RUNNING",
        "properties": {"dapr.workflow.custom_status": "waiting", "dapr.workflow.input": "1"},
    }


async def test_a_failed_instance_tells_why(api: Api) -> None:
    await api.start("fails", "one")
    await api.ended("one")

    state = await api.state("one")

    failure = {
        name.removeprefix("dapr.workflow.failure."): text
        for name, text in state["properties"].items()
        if "failure" in name
    }
    assert state["runtimeStatus"] == "FAILED"
    assert failure["error_type"] == "ValueError"
    assert failure["error_message"] == "no luck"
    assert "raise ValueError" in failure["stack_trace"]


async def test_an_instance_is_paused_resumed_terminated_and_purged(api: Api) -> None:
    await api.start("waits", "one")
    seen = []

    for step in ("pause", "resume", "terminate"):
        response = await api.post(f"{V1}/one/{step}")
        assert (response.status, response.body) == (202, b"{}")
        seen.append((await api.state("one"))["runtimeStatus"])
    purged = await api.post(f"{V1}/one/purge")
    after = await api.transport.send(Request("GET", f"{V1}/one"))

    assert seen == ["SUSPENDED", "RUNNING", "TERMINATED"]
    assert purged.status == 202
    assert fault(after) == (
        404,
        "ERR_INSTANCE_ID_NOT_FOUND",
        "unable to find workflow with the provided instance ID: one",
    )


@pytest.mark.parametrize("version", ["v1.0-beta1", "v1.0-alpha1"])
async def test_earlier_versions_of_the_api_are_served_too(api: Api, version: str) -> None:
    response = await api.post(f"/{version}/workflows/dapr/waits/start?instanceID=one", b"1")

    assert response.status == 202
    assert (await api.state("one", version))["workflowName"] == "waits"


async def test_an_earlier_version_is_of_workflows_alone(api: Api) -> None:
    response = await api.transport.send(Request("GET", "/v1.0-beta1/metadata"))

    assert response.status == 404


async def test_an_active_id_is_not_started_again(api: Api) -> None:
    await api.start("waits", "one")

    response = await api.post(f"{V1}/waits/start?instanceID=one")

    status, code, message = fault(response)
    assert (status, code) == (500, "ERR_START_WORKFLOW")
    assert message == (
        "error starting workflow 'waits': unable to start workflow: failed to start workflow: "
        "an active workflow with ID 'one' already exists"
    )


async def test_a_running_instance_is_not_purged(api: Api) -> None:
    await api.start("waits", "one")

    status, code, message = fault(await api.post(f"{V1}/one/purge"))

    assert (status, code) == (500, "ERR_PURGE_WORKFLOW")
    assert message.endswith("orchestration has not yet completed")
    assert (await api.state("one"))["runtimeStatus"] == "RUNNING"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ("pause", 500, "ERR_PAUSE_WORKFLOW"),
        ("resume", 500, "ERR_RESUME_WORKFLOW"),
        ("raiseEvent/go", 500, "ERR_RAISE_EVENT_WORKFLOW"),
        ("terminate", 404, "ERR_INSTANCE_ID_NOT_FOUND"),
        ("purge", 404, "ERR_INSTANCE_ID_NOT_FOUND"),
    ],
)
async def test_what_does_not_exist_cannot_be_steered(api: Api, step: str, status: int, code: str) -> None:
    response = await api.post(f"{V1}/none/{step}")

    assert fault(response)[:2] == (status, code)


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        ("a%20b", "ERR_INSTANCE_ID_INVALID"),
        ("f%2Fg", "ERR_INSTANCE_ID_INVALID"),
        ("x" * 65, "ERR_INSTANCE_ID_TOO_LONG"),
    ],
)
async def test_an_id_that_cannot_be_is_refused(api: Api, instance: str, code: str) -> None:
    response = await api.post(f"{V1}/waits/start?instanceID={instance}")

    assert fault(response)[:2] == (400, code)


async def test_an_input_that_is_no_text_is_refused(api: Api) -> None:
    response = await api.post(f"{V1}/waits/start?instanceID=one", b"\xff\xfe")

    assert fault(response)[:2] == (500, "ERR_START_WORKFLOW")


@pytest.mark.parametrize("body", [b"{bad", b"\xff", b"[1]"])
async def test_a_body_that_is_no_request_is_refused(api: Api, body: bytes) -> None:
    await api.start("waits", "one")

    response = await api.post(f"{V1}/one/pause", body)

    assert fault(response)[:2] == (400, "ERR_MALFORMED_REQUEST")
    assert (await api.state("one"))["runtimeStatus"] == "RUNNING"
