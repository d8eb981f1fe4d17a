"""A turn and what it comes to, as plain data."""

from collections.abc import Callable
from dataclasses import dataclass, field

from everturn.runtime.engine.inbox import Accepted
from everturn.runtime.engine.messages import Message
from everturn.runtime.engine.state import InstanceState
from everturn.runtime.sdk import HistoryEvent


@dataclass(frozen=True, slots=True)
class Turn:
    """What is decided about: an instance, its state, and what goes into the turn.

    `now` is seconds since 1970-01-01 UTC; `new_id` makes a fresh random id.
    """

    app_id: str
    instance_id: str
    state: InstanceState
    accepted: Accepted
    now: float
    new_id: Callable[[], str]


@dataclass(frozen=True, slots=True)
class ScheduledActivity:
    """An activity to be run by `app_id`; `event` is its taskScheduled, with input and ids."""

    task_id: int
    app_id: str
    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class ArmedTimer:
    """A timer to be fired at `fire_at`, seconds since 1970-01-01 UTC."""

    timer_id: int
    fire_at: float


@dataclass(slots=True)
class Decision:
    """All that a turn changes. Nothing of it has happened yet.

    `appended`: events for the history, those of the turn and then those of its actions. `restart`, where not None, is
    continue-as-new: nothing is appended, the history ends, and these events begin the next execution. `stalled`: the
    turn did not count, what arrived stays in the inbox.
    """

    appended: list[HistoryEvent] = field(default_factory=list)
    restart: list[HistoryEvent] | None = None
    activities: list[ScheduledActivity] = field(default_factory=list)
    timers: list[ArmedTimer] = field(default_factory=list)
    closed_tasks: list[int] = field(default_factory=list)
    closed_timers: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    custom_status: str | None = None
    stalled: bool = False
