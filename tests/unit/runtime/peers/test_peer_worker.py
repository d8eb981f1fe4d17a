"""Workflows over the runtimes of one data folder, as over the sidecars of real Dapr: other apps' code and clients."""

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.workflow_state import WorkflowState, WorkflowStatus

from everturn.dapr.sdk.protocol import (
    ActivityRequest,
    ActivityResponse,
    HistoryEvent,
    StringValue,
    TaskFailureDetails,
    WorkflowAction,
    WorkflowInstance,
    WorkflowResponse,
    WorkflowVersion,
)
from everturn.dapr.wire import Request, Response
from everturn.errors import TransientError
from everturn.runtime.peers.peer_worker import PeerWorker, do_work
from everturn.runtime.workflow.worker import TooLargeError, WorkflowRequest
from tests.unit.runtime.grpc.task_hub_rig import PATIENCE_S, until
from tests.unit.runtime.peers.conftest import Running, Runtimes


async def outcome(running: Running, instance: str, app_id: str | None = None) -> WorkflowState:
    state = await running.client.wait_for_workflow_completion(
        instance, timeout_in_seconds=PATIENCE_S, **({"app_id": app_id} if app_id else {})
    )
    assert state is not None
    return state


def worker(app_id: str, ran: list[str]) -> WorkflowRuntime:
    """Every app has all of the code; `ran` says what was run at this one."""
    runtime = WorkflowRuntime()

    async def shout(_: WorkflowActivityContext, text: str) -> str:
        ran.append(f"shout {text}")
        if text == "never":
            raise ValueError("not so loud")
        return f"{text.upper()} from {app_id}"

    def asks(context: DaprWorkflowContext, text: str) -> Generator[Any, Any, Any]:
        return (yield context.call_activity("shout", input=text, app_id="there"))

    def has_child(context: DaprWorkflowContext, text: str) -> Generator[Any, Any, Any]:
        return (yield context.call_child_workflow("child", input=text, instance_id="the-child", app_id="there"))

    def child(context: DaprWorkflowContext, text: str) -> Generator[Any, Any, Any]:
        loud = yield context.call_activity("shout", input=text)
        event = yield context.wait_for_external_event("go")
        return [loud, event]

    for name, workflow in {"asks": asks, "has_child": has_child, "child": child}.items():
        runtime.register_workflow(workflow, name=name)
    runtime.register_activity(shout, name="shout")
    return runtime


@pytest.fixture
async def runtimes(tmp_path: Path) -> AsyncIterator[Runtimes]:
    made = Runtimes(tmp_path, worker)
    try:
        yield made
    finally:
        await made.end()


async def test_an_activity_of_another_app_runs_there(runtimes: Runtimes) -> None:
    there = await runtimes.start("there")
    here = await runtimes.start("here")

    await here.client.schedule_new_workflow("asks", input="hi", instance_id="one")
    state = await outcome(here, "one")

    assert state.serialized_output == '"HI from there"'
    assert (here.ran, there.ran) == ([], ["shout hi"])


async def test_its_failure_fails_the_workflow_here(runtimes: Runtimes) -> None:
    await runtimes.start("there")
    here = await runtimes.start("here")

    await here.client.schedule_new_workflow("asks", input="never", instance_id="one")
    state = await outcome(here, "one")

    assert state.runtime_status is WorkflowStatus.FAILED
    assert state.failure_details is not None
    assert "not so loud" in state.failure_details.message


async def test_an_activity_waits_for_a_runtime_that_is_down(runtimes: Runtimes) -> None:
    before = await runtimes.start("there")
    here = await runtimes.start("here")
    await before.stop()

    await here.client.schedule_new_workflow("asks", input="hi", instance_id="one")
    there = await runtimes.start("there")
    state = await outcome(here, "one")

    assert state.serialized_output == '"HI from there"'
    assert (before.ran, there.ran) == ([], ["shout hi"])


async def test_work_for_an_app_that_never_was_here_is_told_in_the_log_and_waits(
    runtimes: Runtimes, caplog: pytest.LogCaptureFixture
) -> None:
    here = await runtimes.start("here")
    with caplog.at_level(logging.WARNING, "everturn.runtime"):
        await here.client.schedule_new_workflow("asks", input="hi", instance_id="one")
        await here.client.schedule_new_workflow("has_child", input="ho", instance_id="two")
        await until(lambda: len([item for item in caplog.records if "waits_for_app" in item.message]) >= 2)
    await runtimes.start("there")

    def known() -> bool:
        here.clock.advance(1)
        return here.runtime.engine.worker_of("there") is not None

    await until(known)
    state = await outcome(here, "one")

    told = {(item.message, item.__dict__["app_id"]) for item in caplog.records if "waits_for_app" in item.message}
    assert state.serialized_output == '"HI from there"'
    assert told == {("activity_waits_for_app", "there"), ("workflow_waits_for_app", "there")}


async def test_a_child_of_another_app_runs_there_and_is_seen_by_that_apps_client(runtimes: Runtimes) -> None:
    there = await runtimes.start("there")
    here = await runtimes.start("here")
    await here.client.schedule_new_workflow("has_child", input="hi", instance_id="one")
    await until(lambda: bool(there.ran))

    seen = await there.client.get_workflow_state("the-child")
    not_seen = await here.client.get_workflow_state("the-child")
    await there.client.raise_workflow_event("the-child", "go", data=7)
    state = await outcome(here, "one")

    assert seen is not None
    assert (seen.name, seen.runtime_status) == ("child", WorkflowStatus.RUNNING)
    assert not_seen is None
    assert state.serialized_output == '["HI from there", 7]'
    assert here.ran == []


async def test_a_client_starts_and_waits_for_workflows_of_another_app(runtimes: Runtimes) -> None:
    there = await runtimes.start("there")
    here = await runtimes.start("here")

    await here.client.schedule_new_workflow("asks", input="hi", instance_id="one", app_id="there")
    state = await outcome(here, "one", "there")
    not_here = await here.client.get_workflow_state("one")
    await here.stop()
    kept_there = await there.client.get_workflow_state("one")

    assert state.serialized_output == '"HI from there"'
    assert not_here is None
    assert kept_there is not None


async def test_a_fault_of_another_apps_hub_is_the_callers(runtimes: Runtimes) -> None:
    await runtimes.start("there")
    here = await runtimes.start("here")

    with pytest.raises(Exception, match="no such instance exists"):
        await here.client.raise_workflow_event("none", "go", app_id="there")


async def test_a_call_for_an_app_that_never_was_here_is_refused_by_name(runtimes: Runtimes) -> None:
    here = await runtimes.start("here")

    with pytest.raises(Exception, match="everturn runtime --app-id nobody"):
        await here.client.schedule_new_workflow("asks", input="hi", app_id="nobody")


class OneAnswer:
    """A worker that has one answer, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        answer: WorkflowResponse = await self._give(request)
        return answer

    async def run_activity(self, request: ActivityRequest) -> ActivityResponse:
        outcome: ActivityResponse = await self._give(request)
        return outcome

    async def _give(self, request: Any) -> Any:
        await asyncio.sleep(0)
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None: ...


class Wire:
    """From a `PeerWorker` to the worker of the other runtime."""

    def __init__(self, worker: OneAnswer) -> None:
        self._worker = worker

    async def send(self, request: Request) -> Response:
        return await do_work(self._worker, request)

    async def close(self) -> None: ...


TURN = WorkflowRequest("one", "execution", [HistoryEvent(eventId=1)], [HistoryEvent(eventId=2)])


@pytest.mark.parametrize(
    "answer",
    [
        WorkflowResponse(
            actions=[WorkflowAction(id=3)],
            customStatus=StringValue(value="status"),
            version=WorkflowVersion(name="v2", patches=["a", "b"]),
        ),
        WorkflowResponse(),
        WorkflowResponse(customStatus=StringValue()),
    ],
)
async def test_a_turn_and_its_answer_are_the_same_at_both_ends(answer: WorkflowResponse) -> None:
    behind = OneAnswer(answer)

    got = await PeerWorker("there", Wire(behind)).run_workflow(TURN)

    asked: WorkflowRequest = behind.asked[0]
    assert got == answer
    assert (asked.instance_id, asked.execution_id, asked.propagated) == ("one", "execution", None)
    assert (list(asked.past_events), list(asked.new_events)) == (TURN.past_events, TURN.new_events)


@pytest.mark.parametrize(
    "outcome",
    [
        ActivityResponse(result=StringValue(value="1")),
        ActivityResponse(),
        ActivityResponse(failureDetails=TaskFailureDetails(errorType="E", errorMessage="why")),
    ],
)
async def test_an_activity_and_its_outcome_are_the_same_at_both_ends(outcome: ActivityResponse) -> None:
    behind = OneAnswer(outcome)
    request = ActivityRequest(name="shout", taskId=3, workflowInstance=WorkflowInstance(instanceId="one"))

    got = await PeerWorker("there", Wire(behind)).run_activity(request)

    assert got == outcome
    assert behind.asked == [request]


async def test_a_turn_that_is_too_large_there_is_too_large_here() -> None:
    behind = OneAnswer(TooLargeError("Payload size exceeded: far too many"))

    with pytest.raises(TooLargeError, match="Payload size exceeded: far too many"):
        await PeerWorker("there", Wire(behind)).run_workflow(TURN)


async def test_work_that_was_lost_there_is_lost_here() -> None:
    behind = OneAnswer(TransientError("gone", kind="worker_lost"))

    with pytest.raises(TransientError) as lost:
        await PeerWorker("there", Wire(behind)).run_workflow(TURN)

    assert lost.value.kind == "worker_lost"
