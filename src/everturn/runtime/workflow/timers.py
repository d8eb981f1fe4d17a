"""Durable timers in memory: which are armed, and one alarm for the next of them."""

import heapq
from collections.abc import Callable
from typing import NamedTuple

from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.workflow.store import InstanceId, TimerRow

# So many fire in one round of the loop; the rest in the next, so that a flood of due timers blocks nobody.
_MAX_PER_ROUND = 100
# Disarmed timers stay in the heaps until they would fire, or until they are this many more than the armed ones.
_MAX_LITTER = 10_000
# A double holds seconds since 1970 no more exactly than this (2 ** -22 s), and what is that near is due.
_EXACTNESS_S = 1e-6

Fire = Callable[[InstanceId, TimerRow], None]


class _Entry(NamedTuple):
    """A timer in a heap, by wall time or by elapsed time; `number` is its own, also among timers of the same ids."""

    at: float
    number: int
    owner: InstanceId
    timer: TimerRow


class Timers:
    """Calls `fire` once for each armed timer, when its time has come.

    That is when the wall clock shows it, or when as much time has passed since it was armed as was left then, whichever
    is first: a clock that is set forward makes a timer early, one that is set back makes none late. Over a restart only
    the wall clock counts.
    """

    def __init__(self, clock: Clock, fire: Fire) -> None:
        self._clock = clock
        self._fire = fire
        # By key and timer id, the number under which it is armed, and its time.
        self._armed: dict[tuple[int, int], tuple[int, float]] = {}
        self._by_wall: list[_Entry] = []
        self._by_elapsed: list[_Entry] = []
        self._number = 0
        self._alarm: Alarm | None = None
        self._alarm_for: tuple[_Entry, _Entry] | None = None

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, owner: InstanceId, timer: TimerRow) -> None:
        self._number += 1
        self._armed[timer.key, timer.timer_id] = self._number, timer.fire_at
        left_s = max(0.0, timer.fire_at - self._clock.now())
        heapq.heappush(self._by_wall, _Entry(timer.fire_at, self._number, owner, timer))
        heapq.heappush(self._by_elapsed, _Entry(self._clock.elapsed() + left_s, self._number, owner, timer))
        self._set_alarm()

    def armed_for(self, key: int, timer_id: int) -> float | None:
        """When this timer is due (seconds since 1970-01-01 UTC); None if it is not armed."""
        armed = self._armed.get((key, timer_id))
        return armed[1] if armed is not None else None

    def disarm(self, key: int, timer_id: int) -> None:
        if self._armed.pop((key, timer_id), None) is None:
            return
        if len(self._by_wall) > len(self._armed) + _MAX_LITTER:
            for heap in (self._by_wall, self._by_elapsed):
                heap[:] = filter(self._is_armed, heap)
                heapq.heapify(heap)
        self._set_alarm()

    def stop(self) -> None:
        self._armed.clear()
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Have the alarm ring for the first timer that is armed, if any."""
        for heap in (self._by_wall, self._by_elapsed):
            while heap and not self._is_armed(heap[0]):
                heapq.heappop(heap)
        first = (self._by_wall[0], self._by_elapsed[0]) if self._armed else None
        if first == self._alarm_for:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_for = None, first
        if first is not None:
            left_s = first[1].at - self._clock.elapsed()
            self._alarm = self._clock.call_at(min(first[0].at, self._clock.now() + left_s), self._ring)

    def _is_armed(self, entry: _Entry) -> bool:
        return self._armed.get((entry.timer.key, entry.timer.timer_id), (None, 0.0))[0] == entry.number

    def _ring(self) -> None:
        self._alarm, self._alarm_for = None, None
        self._fire_due(self._by_wall, self._clock.now())
        self._fire_due(self._by_elapsed, self._clock.elapsed())
        self._set_alarm()

    def _fire_due(self, heap: list[_Entry], now: float) -> None:
        for _ in range(_MAX_PER_ROUND):
            if not heap or heap[0].at > now + _EXACTNESS_S:
                return
            entry = heapq.heappop(heap)
            if self._is_armed(entry):
                del self._armed[entry.timer.key, entry.timer.timer_id]
                self._fire(entry.owner, entry.timer)
