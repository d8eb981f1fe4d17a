"""What of the arrived events is new: the engine's only guard against what comes twice, late or out of turn.

Completions and timers are known by kind and id (dapr-wire: "deduped by kind+id"); an id that is not open means that the
answer is already in the history, or that the wait was given up.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from everturn.runtime.engine.state import InstanceState, OpenTimer, oldest_wait_for
from everturn.runtime.sdk import HistoryEvent


@dataclass(slots=True)
class Arrived:
    """An event on its way into an instance.

    `execution_id` names the execution that it answers, where it answers one: the ids of tasks and timers start again
    with every execution. `row` is where the inbox on disk has it, or None.
    """

    event: HistoryEvent
    execution_id: str | None = None
    row: int | None = None


@dataclass(slots=True)
class Accepted:
    """The new events in order of arrival, and the ids that they close."""

    events: list[HistoryEvent] = field(default_factory=list)
    closed_tasks: list[int] = field(default_factory=list)
    closed_timers: list[int] = field(default_factory=list)


def turn_size(arrived: Sequence[Arrived]) -> int:
    """How many of `arrived` one turn may take: all, but a suspension has a turn of its own.

    The SDK's executor puts off all that follows a suspension in the history. Were it in the midst of a turn, that would
    be the very events which say what the turn scheduled, and the next turn would schedule it again.
    """
    for place, item in enumerate(arrived):
        if item.event.HasField("executionSuspended"):
            return place or 1
    return len(arrived)


def accept(state: InstanceState, arrived: Iterable[Arrived]) -> Accepted:
    """Pick from `arrived` what the history does not have yet. Nothing is new to a completed instance."""
    accepted = Accepted()
    if state.completed is not None:
        return accepted
    filter_ = _Filter(state, accepted)
    execution_id = state.execution_id
    for item in arrived:
        if item.execution_id is not None and item.execution_id != execution_id:
            continue
        event = item.event
        is_new = _RULES.get(event.WhichOneof("eventType") or "")
        if is_new is None or is_new(filter_, event):
            accepted.events.append(event)
    return accepted


class _Filter:
    """The state as it would be after the events that were accepted so far; the state itself is not touched."""

    __slots__ = ("accepted", "children", "started", "state", "suspended", "tasks", "timers")

    def __init__(self, state: InstanceState, accepted: Accepted) -> None:
        self.state = state
        self.accepted = accepted
        self.started = state.start is not None
        self.suspended = state.suspended
        self.tasks: set[int] = set()
        self.timers: set[int] = set()
        self.children: set[int] = set()

    def close_task(self, task_id: int) -> bool:
        if task_id not in self.state.tasks or task_id in self.tasks:
            return False
        self.tasks.add(task_id)
        self.accepted.closed_tasks.append(task_id)
        return True

    def close_timer(self, timer_id: int | None) -> bool:
        if timer_id is None or timer_id not in self.state.timers or timer_id in self.timers:
            return False
        self.timers.add(timer_id)
        self.accepted.closed_timers.append(timer_id)
        return True

    def close_child(self, task_id: int) -> bool:
        if task_id not in self.state.children or task_id in self.children:
            return False
        self.children.add(task_id)
        return True

    def open_timers(self) -> Iterable[tuple[int, OpenTimer]]:
        return ((timer_id, timer) for timer_id, timer in self.state.timers.items() if timer_id not in self.timers)


def _start(filter_: _Filter, _event: HistoryEvent) -> bool:
    first, filter_.started = not filter_.started, True
    return first


def _suspend(filter_: _Filter, _event: HistoryEvent) -> bool:
    changed, filter_.suspended = not filter_.suspended, True
    return changed


def _resume(filter_: _Filter, _event: HistoryEvent) -> bool:
    # The SDK's executor fails a workflow that is resumed without being suspended.
    changed, filter_.suspended = filter_.suspended, False
    return changed


def _raise(filter_: _Filter, event: HistoryEvent) -> bool:
    if filter_.state.timers:
        filter_.close_timer(oldest_wait_for(event.eventRaised.name, filter_.open_timers()))
    return True


_RULES: dict[str, Callable[[_Filter, HistoryEvent], bool]] = {
    "executionStarted": _start,
    "executionSuspended": _suspend,
    "executionResumed": _resume,
    "eventRaised": _raise,
    "taskCompleted": lambda filter_, event: filter_.close_task(event.taskCompleted.taskScheduledId),
    "taskFailed": lambda filter_, event: filter_.close_task(event.taskFailed.taskScheduledId),
    "timerFired": lambda filter_, event: filter_.close_timer(event.timerFired.timerId),
    "childWorkflowInstanceCompleted": lambda filter_, event: filter_.close_child(
        event.childWorkflowInstanceCompleted.taskScheduledId
    ),
    "childWorkflowInstanceFailed": lambda filter_, event: filter_.close_child(
        event.childWorkflowInstanceFailed.taskScheduledId
    ),
}
