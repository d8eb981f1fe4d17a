"""What workers see and may do on their streams, by hand."""

from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.sdk.protocol import (
    WORKER_CAPABILITY_HEALTH_PING,
    WORKER_CAPABILITY_STATEFUL_HISTORY,
    CompleteWorkflowAction,
    CreateInstanceRequest,
    CreateInstanceResponse,
    ScheduleTaskAction,
    StringValue,
    WorkflowAction,
    WorkflowVersionNotAvailableAction,
    WorkItem,
)
from everturn.runtime.grpc.remote_worker import MAX_ITEM_BYTES, PING_EVERY_S
from everturn.runtime.workflow.core.state import Status
from tests.unit.runtime.grpc.raw_worker import RawWorker
from tests.unit.runtime.grpc.task_hub_rig import PATIENCE_S, TaskHubRig, until


def schedule(task_id: int, argument: str = "null") -> WorkflowAction:
    task = ScheduleTaskAction(name="work", input=StringValue(value=argument), taskExecutionId=f"task-{task_id}")
    return WorkflowAction(id=task_id, scheduleTask=task)


def complete(action_id: int, result: str, status: Status = Status.COMPLETED) -> WorkflowAction:
    outcome = CompleteWorkflowAction(workflowStatus=status.on_wire, result=StringValue(value=result))
    return WorkflowAction(id=action_id, completeWorkflow=outcome)


def start(hub: TaskHubRig, instance_id: str, argument: str = "null") -> Any:
    """A start under way: it is answered when the first turn is."""
    call = hub.channel().unary_unary(
        "/TaskHubSidecarService/StartInstance",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=CreateInstanceResponse.FromString,
    )
    request = CreateInstanceRequest(instanceId=instance_id, name="raw", input=StringValue(value=argument))
    return call(request, timeout=PATIENCE_S)


async def output_of(hub: TaskHubRig, instance_id: str) -> str | None:
    state = await hub.client().wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)
    assert state is not None
    output: str | None = state.serialized_output
    return output


async def test_a_start_waits_for_a_worker_and_for_its_first_turn(hub: TaskHubRig) -> None:
    starting = start(hub, "i")
    worker = await hub.raw_worker()
    item = await worker.next()
    before = starting.done()

    await worker.answer_turn(item, complete(0, '"done"'))
    answer = await starting

    assert before is False
    assert answer.instanceId == "i"
    assert [event.WhichOneof("eventType") for event in item.workflowRequest.newEvents] == [
        "workflowStarted",
        "executionStarted",
    ]


async def test_what_was_out_on_a_broken_stream_goes_to_another(hub: TaskHubRig) -> None:
    first = await hub.raw_worker()
    starting = start(hub, "i")
    turn = await first.next()
    second = await hub.raw_worker()

    await first.leave()
    again = await second.next()
    await second.answer_turn(again, complete(0, '"from the second"'))
    await starting

    assert again.workflowRequest == turn.workflowRequest
    assert await output_of(hub, "i") == '"from the second"'


async def test_an_activity_on_a_broken_stream_waits_for_the_next_worker(hub: TaskHubRig) -> None:
    first = await hub.raw_worker()
    starting = start(hub, "i")
    await first.answer_turn(await first.next(), schedule(0))
    await starting
    activity = await first.next()

    await first.leave()
    await until(lambda: hub.remote.connected == 0)
    second = await hub.raw_worker()
    again = await second.next()

    assert again.activityRequest == activity.activityRequest


async def test_a_result_counts_on_another_stream_than_its_item_was_sent_to(hub: TaskHubRig) -> None:
    first = await hub.raw_worker()
    starting = start(hub, "i")
    turn = await first.next()
    second = await hub.raw_worker()

    await second.answer_turn(turn, complete(0, '"by the other"'))
    await starting

    assert await output_of(hub, "i") == '"by the other"'


async def test_a_late_result_of_an_earlier_turn_changes_nothing(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()
    starting = start(hub, "i")
    first_turn = await worker.next()
    await worker.answer_turn(first_turn, schedule(0))
    await starting
    await worker.answer_activity(await worker.next(), '"worked"')
    second_turn = await worker.next()

    await worker.answer_turn(first_turn, complete(1, '"too late"'))
    await worker.answer_turn(second_turn, complete(1, '"right"'))

    assert await output_of(hub, "i") == '"right"'


async def test_repeated_and_unknown_results_are_answered_with_ok(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()
    starting = start(hub, "i")
    turn = await worker.next()
    await worker.answer_turn(turn, schedule(0))
    await starting
    activity = await worker.next()
    await worker.answer_activity(activity, '"first"')
    last_turn = await worker.next()

    await worker.answer_activity(activity, '"second"')
    await worker.answer_turn(WorkItem(completionToken="x"))
    await worker.answer_turn(last_turn, complete(1, '"ended"'))
    await worker.answer_turn(last_turn, complete(1, '"again"'))

    results = [event for event in last_turn.workflowRequest.newEvents if event.HasField("taskCompleted")]
    assert [event.taskCompleted.result.value for event in results] == ['"first"']
    assert await output_of(hub, "i") == '"ended"'


async def test_a_worker_that_echoes_no_token_is_understood(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()
    starting = start(hub, "i")

    await worker.answer_turn(await worker.next(), schedule(0), token="")
    await starting
    await worker.answer_activity(await worker.next(), '"worked"', token="")
    await worker.answer_turn(await worker.next(), complete(1, '"ended"'), token="")

    assert await output_of(hub, "i") == '"ended"'


async def test_a_failed_activity_is_its_workflows_business(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()
    starting = start(hub, "i")
    await worker.answer_turn(await worker.next(), schedule(0))
    await starting

    await worker.fail_activity(await worker.next(), "no luck")
    turn = await worker.next()

    failed = [event.taskFailed for event in turn.workflowRequest.newEvents if event.HasField("taskFailed")]
    assert [failure.failureDetails.errorMessage for failure in failed] == ["no luck"]


async def test_several_workers_get_an_even_share(hub: TaskHubRig) -> None:
    workers = [await hub.raw_worker() for _ in range(3)]

    starting = [start(hub, f"i{number}") for number in range(6)]
    items = [[await worker.next() for _ in range(2)] for worker in workers]

    assert {item.workflowRequest.instanceId for two in items for item in two} == {f"i{number}" for number in range(6)}
    for call in starting:
        call.cancel()


async def test_a_worker_that_announces_nothing_gets_no_more_than_it_can_queue(hub: TaskHubRig) -> None:
    plain = await hub.raw_worker()
    starting = [start(hub, f"i{number}") for number in range(101)]
    items = [await plain.next() for _ in range(100)]
    await until(lambda: hub.engine.active_instances == 101)
    able = await hub.raw_worker(WORKER_CAPABILITY_HEALTH_PING)

    the_last = await able.next()

    assert len({item.workflowRequest.instanceId for item in [*items, the_last]}) == 101
    for call in starting:
        call.cancel()


async def second_turn(hub: TaskHubRig, worker: RawWorker) -> WorkItem:
    starting = start(hub, "i")
    await worker.answer_turn(await worker.next(), schedule(0))
    await starting
    await worker.answer_activity(await worker.next(), '"worked"')
    return await worker.next()


async def test_a_plain_worker_always_gets_the_whole_history(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()

    turn = await second_turn(hub, worker)

    assert not turn.workflowRequest.HasField("cachedHistory")
    assert len(turn.workflowRequest.pastEvents) == 3


async def test_a_worker_that_keeps_histories_gets_only_what_is_new_of_them(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker(WORKER_CAPABILITY_STATEFUL_HISTORY)
    second = await second_turn(hub, worker)
    await worker.answer_turn(second, schedule(1))
    await worker.answer_activity(await worker.next(), '"again"')

    third = await worker.next()

    # What it holds is the history of the turn before, without that turn's own events.
    assert not second.workflowRequest.HasField("cachedHistory")
    assert third.workflowRequest.cachedHistory.eventCount == len(second.workflowRequest.pastEvents)
    assert len(third.workflowRequest.pastEvents) == 3


async def test_another_stream_than_the_one_that_holds_it_gets_the_whole_history(hub: TaskHubRig) -> None:
    first = await hub.raw_worker(WORKER_CAPABILITY_STATEFUL_HISTORY)
    second = await second_turn(hub, first)
    await first.answer_turn(second, schedule(1))
    activity = await first.next()
    await first.leave()
    await until(lambda: hub.remote.connected == 0)
    other = await hub.raw_worker(WORKER_CAPABILITY_STATEFUL_HISTORY)
    await other.answer_activity(await other.next(), '"again"')

    third = await other.next()

    assert activity.activityRequest.taskId == 1
    assert not third.workflowRequest.HasField("cachedHistory")
    assert len(third.workflowRequest.pastEvents) == 6


async def test_a_new_execution_begins_with_no_history_held(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker(WORKER_CAPABILITY_STATEFUL_HISTORY)
    second = await second_turn(hub, worker)

    await worker.answer_turn(second, complete(1, '"next"', Status.CONTINUED_AS_NEW))
    again = await worker.next()
    await worker.answer_turn(again, schedule(0))
    await worker.answer_activity(await worker.next(), '"worked"')
    after = await worker.next()

    assert len(again.workflowRequest.pastEvents) == 0
    assert again.workflowRequest.executionId != second.workflowRequest.executionId
    assert not after.workflowRequest.HasField("cachedHistory")


async def test_only_those_who_announce_it_get_health_pings(hub: TaskHubRig) -> None:
    plain = await hub.raw_worker()
    able = await hub.raw_worker(WORKER_CAPABILITY_HEALTH_PING)

    hub.clock.advance(PING_EVERY_S)
    first = await able.next()
    hub.clock.advance(PING_EVERY_S)
    second = await able.next()
    starting = start(hub, "i")
    await hub.raw_worker()
    for_plain = await plain.next()

    assert [first.WhichOneof("request"), second.WhichOneof("request")] == ["healthPing", "healthPing"]
    assert for_plain.WhichOneof("request") == "workflowRequest"
    starting.cancel()


async def test_a_turn_that_is_too_large_to_send_stalls_its_workflow_and_no_other(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()
    for_large = start(hub, "large")
    turn = await worker.next()
    results = [schedule(task_id) for task_id in range(2)]
    await worker.answer_turn(turn, *results)
    await for_large
    for activity in [await worker.next(), await worker.next()]:
        await worker.answer_activity(activity, '"' + "x" * (MAX_ITEM_BYTES - 1000) + '"')
        # Each result is a turn of its own: the first can be sent, both together cannot.
        if activity.activityRequest.taskId == 0:
            await worker.answer_turn(await worker.next())

    await until(lambda: hub.engine.active_instances == 0)
    stalled = await hub.client().get_workflow_state("large")
    for_small = start(hub, "small")
    after = await worker.next()

    assert stalled is not None
    assert stalled.runtime_status.name == "STALLED"
    assert after.workflowRequest.instanceId == "small"
    for_small.cancel()


async def test_a_stalled_workflow_is_tried_again_when_a_worker_comes(hub: TaskHubRig) -> None:
    old = await hub.raw_worker()
    starting = start(hub, "i")
    unknown_version = WorkflowAction(workflowVersionNotAvailable=WorkflowVersionNotAvailableAction())
    await old.answer_turn(await old.next(), unknown_version)
    await starting
    stalled = await hub.client().get_workflow_state("i")
    await old.leave()
    await until(lambda: hub.remote.connected == 0)

    new = await hub.raw_worker()
    await new.answer_turn(await new.next(), complete(0, '"fits"'))

    assert stalled is not None
    assert stalled.runtime_status.name == "STALLED"
    assert await output_of(hub, "i") == '"fits"'


async def test_hello_is_answered(hub: TaskHubRig) -> None:
    worker = await hub.raw_worker()

    answer = await worker.call("Hello", Empty())

    assert isinstance(answer, Empty)


async def test_faults_of_the_hub_are_statuses(hub: TaskHubRig) -> None:
    client = hub.client()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.raise_workflow_event("nobody", "go")

    assert raised.value.code() is grpc.StatusCode.UNKNOWN
    assert "no such instance exists" in str(raised.value.details())
