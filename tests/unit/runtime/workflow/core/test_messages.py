import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.dapr.sdk.protocol import HistoryEvent
from everturn.runtime.workflow.core.state import Arrived, NewEvents, accept, fold, work_item_size
from tests.unit.runtime.workflow.core.events import (
    child,
    child_completed,
    completed,
    ended,
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

HISTORY = [
    turn_started(),
    started(),
    scheduled(1),
    scheduled(2),
    timer(3, 50.0),
    timer(4, 60.0, "go"),
    timer(5, 70.0, "go"),
    child(6),
]


def taken(*arrived: HistoryEvent, history: list[HistoryEvent] | None = None) -> NewEvents:
    return accept(fold(HISTORY if history is None else history), [Arrived(each) for each in arrived])


@pytest.mark.parametrize(
    ("arrived", "taken_first"),
    [
        ([started(), completed(1)], 2),
        ([started(), suspended(), completed(1)], 1),
        ([suspended(), completed(1), resumed()], 1),
        ([completed(1), resumed(), suspended()], 2),
        ([], 0),
    ],
)
def test_a_suspension_has_a_turn_of_its_own(arrived: list[HistoryEvent], taken_first: int) -> None:
    assert work_item_size([Arrived(event) for event in arrived]) == taken_first


def test_an_outcome_counts_once() -> None:
    accepted = taken(completed(1), completed(1), failed(1), fired(3), fired(3), child_completed(6), child_completed(6))

    assert accepted.events == [completed(1), fired(3), child_completed(6)]
    assert (accepted.closed_tasks, accepted.closed_timers) == ([1], [3])


def test_an_outcome_of_what_is_not_open_does_not_count() -> None:
    assert taken(completed(9), fired(9), child_completed(9)).events == []


def test_what_answers_another_execution_does_not_count() -> None:
    state = fold(HISTORY)

    accepted = accept(state, [Arrived(completed(1), "x0"), Arrived(completed(2), "x1")])

    assert accepted.events == [completed(2)]


def test_an_event_stops_the_timer_of_its_wait_from_counting() -> None:
    accepted = taken(raised("GO"), fired(4), fired(5))

    assert accepted.events == [raised("GO"), fired(5)]
    assert accepted.closed_timers == [4, 5]


def test_a_timer_that_fired_first_leaves_the_next_one_to_the_event() -> None:
    accepted = taken(fired(4), raised("go"))

    assert accepted.closed_timers == [4, 5]


def test_events_of_one_name_are_all_kept_in_order() -> None:
    first, second = raised("a"), raised("a")

    assert taken(first, second).events == [first, second]


def test_only_what_is_suspended_is_resumed() -> None:
    assert taken(resumed()).events == []
    assert taken(suspended(), suspended(), resumed(), resumed()).events == [suspended(), resumed()]


def test_an_instance_is_started_once() -> None:
    assert taken(started()).events == []
    assert taken(started(), started("other"), history=[]).events == [started()]


def test_nothing_counts_after_the_end() -> None:
    assert taken(raised("go"), completed(1), history=[*HISTORY, ended()]).events == []


ARRIVALS = st.lists(
    st.sampled_from(
        [completed(1), failed(1), completed(2), fired(3), fired(4), fired(5), raised("go"), child_completed(6)]
    )
)


@given(ARRIVALS, st.integers(min_value=0))
def test_it_does_not_matter_how_arrivals_are_cut_into_turns(arrivals: list[HistoryEvent], cut: int) -> None:
    cut = cut % (len(arrivals) + 1)
    at_once = taken(*arrivals).events

    first = taken(*arrivals[:cut]).events
    second = taken(*arrivals[cut:], history=[*HISTORY, *first]).events

    assert first + second == at_once
