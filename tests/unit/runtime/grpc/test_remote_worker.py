"""Which part of a history a stream leaves out, because its worker holds it."""

from everturn.dapr.sdk.protocol import WORKER_CAPABILITY_STATEFUL_HISTORY, HistoryEvent, WorkflowResponse, WorkflowWork
from everturn.runtime.grpc.remote_worker import Work, WorkStream
from everturn.runtime.workflow.worker import WorkflowRequest


async def sent(stream: WorkStream, execution_id: str, event_count: int) -> WorkflowWork:
    """What goes out for a turn of that execution with so long a history; the worker answers it at once."""
    events = [HistoryEvent(eventId=number) for number in range(event_count)]
    work = Work(("i", None), WorkflowRequest("i", execution_id, events, []))
    stream.send(work)
    item = await anext(stream.items())
    work.answer.set_result(WorkflowResponse())
    stream.answered(work)
    turn: WorkflowWork = item.workflowRequest
    return turn


async def test_the_history_of_the_turn_before_is_left_out() -> None:
    stream = WorkStream([WORKER_CAPABILITY_STATEFUL_HISTORY])
    await sent(stream, "first", 3)

    turn = await sent(stream, "first", 5)

    assert turn.cachedHistory.eventCount == 3
    assert [event.eventId for event in turn.pastEvents] == [3, 4]


async def test_nothing_of_another_execution_is_taken_for_held() -> None:
    stream = WorkStream([WORKER_CAPABILITY_STATEFUL_HISTORY])
    await sent(stream, "first", 3)

    turn = await sent(stream, "second", 5)

    assert not turn.HasField("cachedHistory")
    assert len(turn.pastEvents) == 5
