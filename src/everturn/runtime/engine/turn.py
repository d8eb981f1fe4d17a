"""One go of an instance: turns, through continue-as-new, until there is something to commit."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from everturn.runtime.engine.decide import MAX_CONTINUE_AS_NEW, begin, decide
from everturn.runtime.engine.decision import Decision, Turn
from everturn.runtime.engine.inbox import Accepted
from everturn.runtime.engine.state import InstanceState
from everturn.runtime.sdk import HistoryEvent, Replay

Run = Callable[[Sequence[HistoryEvent], Sequence[HistoryEvent], str], Awaitable[Replay]]


@dataclass(slots=True)
class Outcome:
    """What a go comes to. `restarted`: the history on disk ends, and what is appended is all of the next one.

    `carried` are events that the next go begins with: it continued as new too often for one go. `execution_id` is that
    of the execution which the decision is about.
    """

    decision: Decision
    execution_id: str
    restarted: bool = False
    carried: list[HistoryEvent] = field(default_factory=list)


async def take_turn(turn: Turn, past_events: Sequence[HistoryEvent], run: Run) -> Outcome:
    """Let the worker behind `run(past events, new events, execution id)` take what `turn` accepted.

    Raises what `run` raises, and ValueError where the worker's answer makes no sense; then nothing has changed.
    """
    new_events = begin(turn.accepted, turn.now)
    execution_id = turn.state.execution_id or _execution_of(new_events)
    decision = decide(turn, new_events, await run(past_events, new_events, execution_id))
    if decision.restart is None:
        return Outcome(decision, execution_id)
    closed_tasks, closed_timers = decision.closed_tasks, decision.closed_timers
    restarts = 1
    while decision.restart is not None and restarts <= MAX_CONTINUE_AS_NEW:
        restarts += 1
        new_events = decision.restart
        execution_id = _execution_of(new_events)
        turn = Turn(turn.app_id, turn.instance_id, InstanceState(), Accepted(new_events[1:]), turn.now, turn.new_id)
        decision = decide(turn, new_events, await run((), new_events, execution_id))
    carried = new_events[1:] if decision.stalled else (decision.restart or [])[1:]
    decision.closed_tasks, decision.closed_timers = closed_tasks, closed_timers
    return Outcome(decision, execution_id, restarted=True, carried=carried)


def _execution_of(new_events: Sequence[HistoryEvent]) -> str:
    for event in new_events:
        if event.HasField("executionStarted"):
            return str(event.executionStarted.workflowInstance.executionId.value)
    return ""
