from itertools import count

from everturn.dapr.sdk.protocol import HistoryEvent, WorkflowResponse, new_complete_workflow_action
from everturn.runtime.workflow.core.decide import MAX_CONTINUE_AS_NEW, ItemResult, WorkItem, advance
from everturn.runtime.workflow.core.state import Arrived, Status, accept, fold
from tests.unit.runtime.workflow.core.events import completed, raised, scheduled, started, turn_started


def taken(history: list[HistoryEvent], arrived: HistoryEvent, restarts: int) -> tuple[ItemResult, list[str]]:
    """What a workflow comes to that continues as new so many times and then ends, and the executions that it had."""
    executions: list[str] = []
    ids = count(1)
    state = fold(history)
    new = accept(state, [Arrived(arrived)])
    item: WorkItem | ItemResult = WorkItem.begin(("app", "one"), state, new, 2_000.0, lambda: f"id{next(ids)}")
    while isinstance(item, WorkItem):
        executions.append(item.execution_id)
        status = Status.CONTINUED_AS_NEW if len(executions) <= restarts else Status.COMPLETED
        action = new_complete_workflow_action(1, status.on_wire, "1")
        if status is Status.CONTINUED_AS_NEW:
            carried = [event for event in item.new_events if event.HasField("eventRaised")]
            action.completeWorkflow.carryoverEvents.extend(carried)
        item = advance(item, WorkflowResponse(actions=[action]))
    return item, executions


def test_a_plain_turn_appends() -> None:
    result, executions = taken([turn_started(), started(), scheduled(1)], completed(1), restarts=0)

    assert (result.restarted, result.execution_id, executions) == (False, "x1", ["x1"])
    assert result.decision.closed_tasks == [1]


def test_continue_as_new_goes_on_in_the_same_go() -> None:
    result, executions = taken([turn_started(), started(), scheduled(1)], completed(1), restarts=2)

    assert executions == ["x1", "id1", "id2"]
    assert (result.restarted, result.execution_id, result.carried) == (True, "id2", [])
    assert result.decision.closed_tasks == [1]
    assert result.decision.appended[-1].HasField("executionCompleted")


def test_too_many_in_one_go_are_carried_to_the_next() -> None:
    result, executions = taken([turn_started(), started()], raised("kept"), restarts=1_000)

    assert len(executions) == 1 + MAX_CONTINUE_AS_NEW
    assert result.decision.appended == []
    assert [event.WhichOneof("eventType") for event in result.carried] == ["executionStarted", "eventRaised"]
