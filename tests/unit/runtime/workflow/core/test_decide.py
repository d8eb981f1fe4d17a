from itertools import count

import pytest

from everturn.dapr.sdk.protocol import (
    CreateChildWorkflowAction,
    CreateTimerAction,
    HistoryEvent,
    ParentInstanceInfo,
    ScheduleTaskAction,
    StringValue,
    TaskRouter,
    TimerOriginExternalEvent,
    Timestamp,
    WorkflowAction,
    WorkflowResponse,
    WorkflowVersion,
    new_complete_workflow_action,
)
from everturn.runtime.workflow.core.decide import ArmedTimer, Decision, WorkItem, decide
from everturn.runtime.workflow.core.state import (
    NEVER_S,
    Arrived,
    Deliver,
    StartInstance,
    Status,
    accept,
    fold,
    instance_of,
    timestamp_of,
)
from tests.unit.runtime.workflow.core.events import (
    child,
    completed,
    raised,
    scheduled,
    started,
    suspended,
    terminated,
    timer,
    turn_started,
)

NOW = 2_000.0


def item_of(history: list[HistoryEvent], *arrived: HistoryEvent) -> WorkItem:
    state = fold(history)
    ids = count(1)
    new = accept(state, [Arrived(event) for event in arrived])
    return WorkItem.begin(("app", "one"), state, new, NOW, lambda: f"id{next(ids)}")


def decided(history: list[HistoryEvent], arrived: list[HistoryEvent], *actions: WorkflowAction) -> Decision:
    return decide(item_of(history, *arrived), WorkflowResponse(actions=actions))


def end(status: Status, result: str | None = None, action_id: int = 9) -> WorkflowAction:
    action: WorkflowAction = new_complete_workflow_action(action_id, status.on_wire, result)
    return action


def test_a_scheduled_activity_is_an_event_with_the_actions_id_and_work_for_its_app() -> None:
    task = ScheduleTaskAction(name="step", input=StringValue(value="1"), taskExecutionId="t1")
    here = WorkflowAction(id=4, scheduleTask=task)
    there = WorkflowAction(id=5, scheduleTask=task, router=TaskRouter(targetAppID="other"))

    decision = decided([], [started()], here, there)

    assert [event.eventId for event in decision.appended[-2:]] == [4, 5]
    assert [(work.event.eventId, work.app_id) for work in decision.activities] == [(4, "app"), (5, "other")]
    assert decision.activities[0].event.taskScheduled.input.value == "1"


def test_a_timer_is_armed_and_keeps_its_origin() -> None:
    origin = TimerOriginExternalEvent(name="go")
    action = WorkflowAction(id=2, createTimer=CreateTimerAction(fireAt=timestamp_of(2_060.5), externalEvent=origin))

    decision = decided([], [started()], action)

    assert decision.timers == [ArmedTimer(2, 2_060.5)]
    assert decision.appended[-1].timerCreated.externalEvent.name == "go"


def test_a_wait_forever_is_recorded_and_not_armed() -> None:
    forever = Timestamp(seconds=NEVER_S, nanos=999_999_999)
    action = WorkflowAction(id=2, createTimer=CreateTimerAction(fireAt=forever))

    decision = decided([], [started()], action)

    assert decision.timers == []
    assert decision.appended[-1].HasField("timerCreated")


def test_a_child_is_started_with_its_parent_named() -> None:
    action = WorkflowAction(id=10, createChildWorkflow=CreateChildWorkflowAction(name="child"))

    decision = decided([], [started()], action)

    (message,) = decision.messages
    assert isinstance(message, StartInstance)
    assert message.instance_id == "one:000a"
    parent = message.event.executionStarted.parentInstance
    assert (parent.taskScheduledId, parent.workflowInstance.instanceId, parent.appID) == (10, "one", "app")


def started_as_child() -> HistoryEvent:
    event = started()
    parent = ParentInstanceInfo(taskScheduledId=3, workflowInstance=instance_of("boss", "x9"), appID="other")
    event.executionStarted.parentInstance.CopyFrom(parent)
    return event


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.COMPLETED, "childWorkflowInstanceCompleted"),
        (Status.FAILED, "childWorkflowInstanceFailed"),
        (Status.TERMINATED, "childWorkflowInstanceFailed"),
    ],
)
def test_a_childs_end_is_told_to_the_execution_that_started_it(status: Status, kind: str) -> None:
    decision = decided([], [started_as_child()], end(status, "7"))

    (message,) = decision.messages
    assert isinstance(message, Deliver)
    assert (message.app_id, message.instance_id, message.execution_id) == ("other", "boss", "x9")
    assert message.event.WhichOneof("eventType") == kind


def test_the_end_closes_what_is_open() -> None:
    history = [turn_started(), started(), scheduled(1), scheduled(2), timer(3, 3_000.0), timer(4, float(NEVER_S))]

    decision = decided(history, [completed(1)], end(Status.COMPLETED))

    assert (decision.closed_tasks, decision.closed_timers) == ([1, 2], [3])
    assert decision.appended[-1].HasField("executionCompleted")


def test_what_arrived_closes_what_it_answers() -> None:
    history = [turn_started(), started(), scheduled(1), scheduled(2), timer(3, 3_000.0, "go"), timer(4, 4_000.0)]

    decision = decided(history, [completed(1), raised("go")])

    assert (decision.closed_tasks, decision.closed_timers) == ([1], [3])


def test_continue_as_new_begins_an_execution_of_its_own() -> None:
    action = end(Status.CONTINUED_AS_NEW, "2")
    action.completeWorkflow.carryoverEvents.append(raised("kept"))

    decision = decided([turn_started(), started(argument="1"), scheduled(1)], [completed(1)], action)

    assert decision.appended == []
    assert decision.restart is not None
    assert [event.WhichOneof("eventType") for event in decision.restart] == [
        "workflowStarted",
        "executionStarted",
        "eventRaised",
    ]
    begun = decision.restart[1].executionStarted
    assert (begun.input.value, begun.workflowInstance.executionId.value, begun.name) == ("2", "id1", "flow")
    assert decision.closed_tasks == [1]


def test_termination_and_suspension_outlive_continue_as_new() -> None:
    history = [turn_started(), started(), scheduled(1)]

    decision = decided(history, [completed(1), suspended(), terminated()], end(Status.CONTINUED_AS_NEW))

    assert decision.restart is not None
    assert decision.restart[2:] == [suspended(), terminated()]


@pytest.mark.parametrize(("recurse", "reached"), [(True, ["kid"]), (False, [])])
def test_only_a_recursive_termination_reaches_open_children(recurse: bool, reached: list[str]) -> None:
    history = [turn_started(), started(), child(1, "kid")]

    decision = decided(history, [terminated(recurse=recurse)], end(Status.TERMINATED))

    assert [message.instance_id for message in decision.messages] == reached


def test_version_and_new_patches_are_written_into_the_turn() -> None:
    turn = item_of([turn_started("a"), started()], raised("go"))

    decision = decide(turn, WorkflowResponse(version=WorkflowVersion(name="v1", patches=("a", "b", "b"))))

    version = decision.appended[0].workflowStarted.version
    assert (version.name, list(version.patches)) == ("v1", ["b", "b"])


def test_a_worker_without_a_recorded_patch_stalls_the_instance() -> None:
    turn = item_of([turn_started("a", "b"), started()], raised("go"))
    answer = WorkflowResponse(actions=[end(Status.COMPLETED)], version=WorkflowVersion(patches=["b"]))

    decision = decide(turn, answer)

    assert decision.stalled
    assert [event.WhichOneof("eventType") for event in decision.appended] == ["executionStalled"]


def test_the_same_stall_is_recorded_once() -> None:
    turn = item_of([turn_started("a"), started()], raised("go"))
    stall = decide(turn, WorkflowResponse()).appended
    again = item_of([turn_started("a"), started(), *stall], raised("go"))

    decision = decide(again, WorkflowResponse())

    assert decision.stalled
    assert decision.appended == []


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown action"):
        decided([], [started()], WorkflowAction(id=1))


def test_a_turn_without_a_start_is_refused() -> None:
    with pytest.raises(ValueError, match="no start event"):
        decided([], [raised("go")], end(Status.COMPLETED))


def test_deciding_changes_nothing_of_the_state() -> None:
    history = [turn_started(), started(), scheduled(1), timer(2, 3_000.0, "go")]
    turn = item_of(history, completed(1), raised("go"))

    decide(turn, WorkflowResponse(actions=[end(Status.COMPLETED)]))

    assert (list(turn.state.tasks), list(turn.state.timers), turn.state.status) == ([1], [2], Status.RUNNING)
