from collections.abc import Sequence
from itertools import count

from everturn.runtime.engine.decide import MAX_CONTINUE_AS_NEW
from everturn.runtime.engine.decision import Turn
from everturn.runtime.engine.inbox import Arrived, accept
from everturn.runtime.engine.state import Status, fold
from everturn.runtime.engine.turn import Outcome, take_turn
from everturn.runtime.sdk import HistoryEvent, Replay, new_complete_workflow_action, status_value
from tests.unit.engine.events import completed, raised, scheduled, started, turn_started


async def taken(history: list[HistoryEvent], arrived: HistoryEvent, restarts: int) -> tuple[Outcome, list[str]]:
    """What a workflow comes to that continues as new so many times and then ends, and the executions that it had."""
    executions: list[str] = []
    ids = count(1)
    state = fold(history)

    async def run(past: Sequence[HistoryEvent], new: Sequence[HistoryEvent], execution_id: str) -> Replay:
        executions.append(execution_id)
        status = Status.CONTINUED_AS_NEW if len(executions) <= restarts else Status.COMPLETED
        action = new_complete_workflow_action(1, status_value(status), "1")
        if status is Status.CONTINUED_AS_NEW:
            action.completeWorkflow.carryoverEvents.extend(event for event in new if event.HasField("eventRaised"))
        return Replay([action])

    turn = Turn("app", "one", state, accept(state, [Arrived(arrived)]), 2_000.0, lambda: f"id{next(ids)}")
    return await take_turn(turn, history, run), executions


async def test_a_plain_turn_appends() -> None:
    outcome, executions = await taken([turn_started(), started(), scheduled(1)], completed(1), restarts=0)

    assert (outcome.restarted, outcome.execution_id, executions) == (False, "x1", ["x1"])
    assert outcome.decision.closed_tasks == [1]


async def test_continue_as_new_goes_on_in_the_same_go() -> None:
    outcome, executions = await taken([turn_started(), started(), scheduled(1)], completed(1), restarts=2)

    assert executions == ["x1", "id1", "id2"]
    assert (outcome.restarted, outcome.execution_id, outcome.carried) == (True, "id2", [])
    assert outcome.decision.closed_tasks == [1]
    assert outcome.decision.appended[-1].HasField("executionCompleted")


async def test_too_many_in_one_go_are_carried_to_the_next() -> None:
    outcome, executions = await taken([turn_started(), started()], raised("kept"), restarts=1_000)

    assert len(executions) == 1 + MAX_CONTINUE_AS_NEW
    assert outcome.decision.appended == []
    assert [event.WhichOneof("eventType") for event in outcome.carried] == ["executionStarted", "eventRaised"]
