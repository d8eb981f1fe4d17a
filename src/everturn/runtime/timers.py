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

Fire = Callable[[InstanceId, TimerRow], None]


class Timers:
    """Calls `fire` once for each armed timer, at or after its time by the wall clock, in the order of their times."""

    def __init__(self, clock: Clock, fire: Fire) -> None:
        self._clock = clock
        self._fire = fire
        self._armed: dict[tuple[int, int], tuple[InstanceId, TimerRow]] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._alarm: Alarm | None = None
        self._alarm_at = float("inf")

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, owner: InstanceId, timer: TimerRow) -> None:
        self._armed[timer.key, timer.timer_id] = (owner, timer)
        heapq.heappush(self._heap, (timer.fire_at, timer.key, timer.timer_id))
        self._set_alarm()

    def disarm(self, key: int, timer_id: int) -> None:
        self._armed.pop((key, timer_id), None)
        if len(self._heap) > len(self._armed) + _MAX_LITTER:
            self._heap = [(timer.fire_at, timer.key, timer.timer_id) for _, timer in self._armed.values()]
            heapq.heapify(self._heap)

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._armed.clear()
        self._heap.clear()

    def _set_alarm(self) -> None:
        if not self._heap or self._heap[0][0] >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = self._heap[0][0]
        self._alarm = self._clock.call_at(self._alarm_at, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        now = self._clock.now()
        fired = 0
        while self._heap and self._heap[0][0] <= now and fired < _MAX_AT_ONCE:
            fire_at, key, timer_id = heapq.heappop(self._heap)
            owner_and_timer = self._armed.get((key, timer_id))
            if owner_and_timer is not None and owner_and_timer[1].fire_at == fire_at:
                del self._armed[key, timer_id]
                self._fire(*owner_and_timer)
                fired += 1
        self._set_alarm()
