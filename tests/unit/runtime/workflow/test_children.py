from datetime import timedelta
from typing import Any

import pytest
from dapr.ext.workflow import RetryPolicy, TaskFailedError, when_all

from everturn.dapr.sdk.protocol import CreateDetachedWorkflowAction, Timestamp, WorkflowAction, WorkflowResponse
from everturn.runtime.workflow.core.state import timestamp_of
from everturn.runtime.workflow.worker import LocalWorker, WorkflowRequest
from tests.unit.runtime.workflow.rig import Rig, until


def register_family(rig: Rig) -> None:
    @rig.workflow
    def child(ctx: Any, number: int) -> Any:
        doubled = yield ctx.call_activity("double", input=number)
        return doubled

    @rig.activity
    async def double(_ctx: Any, number: int) -> int:
        return number * 2

    @rig.workflow
    def parent(ctx: Any, numbers: list[int]) -> Any:
        return (yield when_all([ctx.call_child_workflow("child", input=number) for number in numbers]))

    @rig.workflow
    def waiting_child(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @rig.workflow
    def waiting_parent(ctx: Any, child_id: str) -> Any:
        return (yield ctx.call_child_workflow("waiting_child", instance_id=child_id))


async def test_children_give_their_results_to_their_parent(rig: Rig) -> None:
    register_family(rig)
    await rig.open()

    state = await rig.run("parent", [1, 2, 3])

    assert state.serialized_output == "[2, 4, 6]"


async def test_a_child_without_an_id_is_named_after_its_parent(rig: Rig) -> None:
    register_family(rig)
    await rig.open()
    instance_id = await rig.start("parent", [1])
    await rig.ended(instance_id)

    ids = [found async for found in rig.client.iter_workflow_instance_ids()]

    assert ids == [instance_id, f"{instance_id}:0001"]


async def test_a_childs_failure_is_raised_in_its_parent(rig: Rig) -> None:
    @rig.workflow
    def bad_child(_ctx: Any, _: Any) -> Any:
        raise ArithmeticError("wrong sum")

    @rig.workflow
    def careful(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.call_child_workflow("bad_child")
        except TaskFailedError as error:
            return str(error)

    await rig.open()

    state = await rig.run("careful")

    assert "wrong sum" in state.serialized_output


async def test_a_failed_child_is_retried_under_its_id(rig: Rig) -> None:
    runs: list[str] = []

    @rig.workflow
    def flaky_child(ctx: Any, _: Any) -> Any:
        runs.append(ctx.instance_id)
        if len(runs) < 2:
            raise ConnectionError
        return "fine"

    @rig.workflow
    def persistent(ctx: Any, _: Any) -> Any:
        policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=3)
        return (yield ctx.call_child_workflow("flaky_child", instance_id="kid", retry_policy=policy))

    await rig.open()
    instance_id = await rig.start("persistent")
    await until(lambda: rig.engine.armed_timers == 1)

    rig.clock.advance(5)
    state = await rig.ended(instance_id)

    assert runs == ["kid", "kid"]
    assert state.serialized_output == '"fine"'


async def test_a_child_whose_id_is_taken_fails(rig: Rig) -> None:
    register_family(rig)
    await rig.open()
    await rig.start("waiting_child", instance_id="taken")

    state = await rig.run("waiting_parent", "taken")

    assert state.runtime_status.name == "FAILED"
    assert "already exists" in state.failure_details.message
    assert await rig.status("taken") == "RUNNING"


async def test_two_children_of_one_step_with_one_id_do_not_hang_their_parent(rig: Rig) -> None:
    register_family(rig)

    @rig.workflow
    def twins(ctx: Any, _: Any) -> Any:
        both = [ctx.call_child_workflow("child", input=1, instance_id="twin") for _ in range(2)]
        return (yield when_all(both))

    await rig.open()

    state = await rig.run("twins")

    assert state.runtime_status.name == "FAILED"


async def test_a_childs_outcome_survives_a_crash_of_its_parents_worker(rig: Rig) -> None:
    register_family(rig)
    await rig.open()
    instance_id = await rig.start("waiting_parent", "kid")
    await until(lambda: rig.database.read("SELECT 1 FROM workflow_instances WHERE instance_id = 'kid'") != [])
    await rig.reopen()

    await rig.client.raise_workflow_event("kid", "go", data=7)
    state = await rig.ended(instance_id)

    assert state.serialized_output == "7"


async def test_a_child_can_run_in_another_app(rig: Rig) -> None:
    register_family(rig)

    @rig.workflow
    def calls_over(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("child", input=4, app_id="other"))

    await rig.open()
    rig.engine.register("other", rig.runtime())

    state = await rig.run("calls_over")
    there = [found async for found in rig.engine.client("other").iter_workflow_instance_ids()]

    assert state.serialized_output == "8"
    assert len(there) == 1


class DetachingWorker(LocalWorker):
    """Creates an instance `later` that starts in a minute, in the first work item of the instance `one`."""

    starts_at: Timestamp | None = None

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        answer = await super().run_workflow(request)
        if request.instance_id == "one" and self.starts_at is not None:
            detached = CreateDetachedWorkflowAction(
                instanceId="later", name="waits", scheduledStartTimestamp=self.starts_at
            )
            answer.actions.append(WorkflowAction(id=100, createDetachedWorkflow=detached))
            self.starts_at = None
        return answer


@pytest.mark.parametrize("early", [False, True])
async def test_a_workflow_creates_one_that_starts_later_or_with_its_first_event(rig: Rig, *, early: bool) -> None:
    @rig.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    await rig.open(worker=False)
    worker = DetachingWorker(rig.runtime())
    worker.starts_at = timestamp_of(rig.clock.now() + 60)
    rig.engine.register("app", worker)
    await rig.start("waits", instance_id="one")
    before = await rig.status("later")

    if not early:
        rig.clock.advance(60)
        await until(lambda: rig.engine.armed_timers == 0)
    await rig.client.raise_workflow_event("later", "go", data=1)
    state = await rig.ended("later")

    assert before == "PENDING"
    assert state.serialized_output == "1"
    assert rig.engine.armed_timers == 0
