"""Durable timers in memory: which are armed, and one alarm for the next of them."""

import heapq
from collections.abc import Callable

from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.instances import InstanceId
from everturn.runtime.store.workflow_store import TimerRow

# So many fire in one round of the loop; the rest in the next, so that a flood of due timers blocks nobody.
_MAX_AT_ONCE = 100
# Disarmed timers stay in the heap until they would fire, or until they are this many more than the armed ones.
_MAX_LITTER = 10_000
_NEVER = float("inf")

Fire = Callable[[InstanceId, TimerRow], None]


class Timers:
    """Calls `fire` once for each armed timer, at or after its time by the wall clock, in the order of their times."""

    def __init__(self, clock: Clock, fire: Fire) -> None:
        self._clock = clock
        self._fire = fire
        self._armed: dict[tuple[int, int], tuple[InstanceId, TimerRow]] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._alarm: Alarm | None = None
        self._alarm_at = _NEVER

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, owner: InstanceId, timer: TimerRow) -> None:
        self._armed[timer.key, timer.timer_id] = (owner, timer)
        heapq.heappush(self._heap, (timer.fire_at, timer.key, timer.timer_id))
        self._set_alarm()

    def disarm(self, key: int, timer_id: int) -> None:
        if self._armed.pop((key, timer_id), None) is not None:
            self._set_alarm()
            if len(self._heap) > len(self._armed) + _MAX_LITTER:
                self._heap = [(timer.fire_at, timer.key, timer.timer_id) for _, timer in self._armed.values()]
                heapq.heapify(self._heap)

    def stop(self) -> None:
        self._armed.clear()
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Have the alarm ring for the first timer that is armed, if any."""
        while self._heap and not self._is_armed(self._heap[0]):
            heapq.heappop(self._heap)
        ring_at = self._heap[0][0] if self._heap else _NEVER
        if ring_at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = ring_at
        self._alarm = self._clock.call_at(ring_at, self._ring) if self._heap else None

    def _is_armed(self, entry: tuple[float, int, int]) -> bool:
        fire_at, key, timer_id = entry
        armed = self._armed.get((key, timer_id))
        return armed is not None and armed[1].fire_at == fire_at

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, _NEVER
        now = self._clock.now()
        for _ in range(_MAX_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            entry = heapq.heappop(self._heap)
            if self._is_armed(entry):
                self._fire(*self._armed.pop(entry[1:]))
        self._set_alarm()
