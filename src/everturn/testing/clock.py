"""A clock that only a test moves."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class ManualClock:
    """Stands still until `advance`; an alarm rings as soon as the time has been moved past it.

    A `runtime.clock.Clock`.
    """

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._now = start
        self._alarms: list[tuple[float, int, ManualAlarm]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> "ManualAlarm":
        alarm = ManualAlarm(callback)
        heapq.heappush(self._alarms, (when, next(self._order), alarm))
        self._ring()
        return alarm

    def advance(self, seconds: float) -> None:
        """Move the time by `seconds` (backwards too) and ring what is due, in the loop's next round."""
        self._now += seconds
        self._ring()

    @property
    def next_alarm_in_s(self) -> float | None:
        """Seconds until the first alarm that still waits, None where there is none."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] - self._now if self._alarms else None

    def _ring(self) -> None:
        while self._alarms and self._alarms[0][0] <= self._now:
            _, _, alarm = heapq.heappop(self._alarms)
            asyncio.get_running_loop().call_soon(alarm.ring)


class ManualAlarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def ring(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._callback()
