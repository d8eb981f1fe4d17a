from itertools import count
from typing import Any

import pytest

from everturn.dapr.sdk.protocol import HistoryEvent, RerunWorkflowFromEventRequest, StringValue
from everturn.runtime.workflow.core.decide import Decision
from everturn.runtime.workflow.core.fork import ForkError, fork_history
from everturn.runtime.workflow.core.state import StartInstance, timestamp_of
from tests.unit.runtime.workflow.core.events import (
    child,
    child_completed,
    completed,
    scheduled,
    started,
    timer,
    turn_started,
)

HISTORY = [
    turn_started(),
    started(),
    scheduled(1),
    scheduled(2),
    timer(3, 5_000.0),
    turn_started(),
    completed(1),
    child(4, "one:0004"),
    turn_started(),
    child_completed(4),
    scheduled(5),
]


def forked(event_id: int, **wanted: Any) -> tuple[StartInstance, Decision]:
    ids = count(1)
    request = RerunWorkflowFromEventRequest(sourceInstanceID="one", eventID=event_id, **wanted)
    start, result = fork_history(HISTORY, request, ("app", "two"), timestamp_of(2_000.0), lambda: f"id{next(ids)}")
    return start, result.decision


def kinds(events: list[HistoryEvent]) -> list[str | None]:
    return [event.WhichOneof("eventType") for event in events]


def test_the_history_ends_with_the_event() -> None:
    _, decision = forked(4)

    assert kinds(decision.appended) == kinds(HISTORY[:8])


def test_the_new_instance_has_its_own_ids() -> None:
    start, _ = forked(4)

    instance = start.event.executionStarted.workflowInstance
    assert (instance.instanceId, instance.executionId.value) == ("two", "id1")


def test_what_was_unfinished_is_done_again() -> None:
    _, decision = forked(5)

    assert [activity.event.eventId for activity in decision.activities] == [2, 5]
    assert [(again.timer_id, again.fire_at) for again in decision.timers] == [(3, 5_000.0)]
    assert decision.activities[1].event.taskScheduled.rerunParentInstanceInfo.instanceID == "one"


def test_a_child_gets_an_id_after_its_new_parent() -> None:
    (message,) = forked(4)[1].messages

    assert isinstance(message, StartInstance)
    assert message.instance_id == "two:0004"


def test_a_child_gets_the_id_that_is_asked_for() -> None:
    (message,) = forked(4, newChildWorkflowInstanceID="mine")[1].messages

    assert message.instance_id == "mine"


def test_the_input_can_be_replaced() -> None:
    _, decision = forked(5, overwriteInput=True, input=StringValue(value="20"))

    assert decision.appended[-1].taskScheduled.input.value == "20"


def test_the_source_is_not_touched() -> None:
    before = [event.SerializeToString() for event in HISTORY]

    forked(5, overwriteInput=True, input=StringValue(value="20"))

    assert [event.SerializeToString() for event in HISTORY] == before


@pytest.mark.parametrize(
    ("event_id", "wanted", "kind"),
    [
        (99, {}, "not_found"),
        (3, {"overwriteInput": True}, "invalid"),
        (5, {"newChildWorkflowInstanceID": "mine"}, "invalid"),
    ],
)
def test_what_cannot_be_forked_is_refused(event_id: int, wanted: dict[str, Any], kind: str) -> None:
    with pytest.raises(ForkError) as raised:
        forked(event_id, **wanted)

    assert raised.value.kind == kind
