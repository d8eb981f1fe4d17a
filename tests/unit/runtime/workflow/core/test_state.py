from everturn.dapr.sdk.protocol import ExecutionStalledEvent
from everturn.runtime.workflow.core.state import NEVER_S, OpenTimer, Status, fold, status_after
from tests.unit.runtime.workflow.core.events import (
    child,
    child_completed,
    completed,
    ended,
    event,
    failed,
    fired,
    raised,
    resumed,
    scheduled,
    started,
    suspended,
    timer,
    turn_started,
)


def test_nothing_is_pending() -> None:
    assert fold([]).status is Status.PENDING


def test_a_started_instance_is_running_under_its_execution() -> None:
    state = fold([turn_started(), started(execution_id="x7")])

    assert (state.status, state.execution_id) == (Status.RUNNING, "x7")


def test_what_has_an_outcome_is_not_open() -> None:
    state = fold(
        [scheduled(1), scheduled(2), scheduled(3), child(4), child(5), completed(1), failed(2), child_completed(4)]
    )

    assert (list(state.tasks), list(state.children)) == ([3], [5])


def test_a_timer_is_open_until_it_fires() -> None:
    state = fold([timer(1, 5.0), timer(2, 7.5), fired(1)])

    assert state.timers == {2: OpenTimer(7.5, None)}


def test_an_event_closes_the_oldest_timer_that_waits_for_it() -> None:
    state = fold([timer(1, 5.0), timer(2, 9.0, "Go"), timer(3, 7.0, "go"), raised("GO")])

    assert list(state.timers) == [1, 3]


def test_a_timer_of_a_wait_forever_is_not_armed() -> None:
    state = fold([timer(1, float(NEVER_S), "go")])

    assert not state.timers[1].armed


def test_suspension_ends_with_its_resumption() -> None:
    history = [turn_started(), started(), suspended()]

    assert fold(history).status is Status.SUSPENDED
    assert fold([*history, resumed()]).status is Status.RUNNING


def test_a_stall_ends_with_the_next_turn() -> None:
    history = [turn_started(), started(), event(executionStalled=ExecutionStalledEvent(description="why"))]

    assert fold(history).status is Status.STALLED
    assert fold([*history, turn_started()]).status is Status.RUNNING


def test_an_end_closes_everything() -> None:
    state = fold([turn_started(), started(), scheduled(1), timer(2, 5.0), child(3), ended(Status.FAILED)])

    assert state.status is Status.FAILED
    assert [*state.tasks, *state.timers, *state.children] == []


def test_patches_are_collected_over_the_turns() -> None:
    state = fold([turn_started("a", version="v2"), started(), turn_started("b", "c")])

    assert (state.version, state.patches) == ("v2", ["a", "b", "c"])


def test_the_status_to_come_is_that_of_the_fold() -> None:
    history = [turn_started(), started()]

    for more in ([scheduled(1)], [suspended()], [suspended(), resumed()], [suspended(), ended()]):
        assert status_after(fold(history), more) is fold([*history, *more]).status
