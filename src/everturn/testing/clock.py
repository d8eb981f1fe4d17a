"""A clock that only a test moves."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class ManualAlarm:
    when: float
    deadline: float
    callback: Callable[[], None]
    waiting: bool = True

    def cancel(self) -> None:
        self.waiting = False

    def ring(self) -> None:
        if self.waiting:
            self.waiting = False
            self.callback()


class ManualClock:
    """Stands still until it is moved; an alarm rings, in the loop's next round, as soon as it is due.

    A `runtime.clock.Clock`.
    """

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._wall = start
        self._elapsed = 0.0
        self._alarms: list[ManualAlarm] = []

    def now(self) -> float:
        return self._wall

    def elapsed(self) -> float:
        return self._elapsed

    def call_at(self, when: float, callback: Callable[[], None]) -> ManualAlarm:
        alarm = ManualAlarm(when, self._elapsed + max(0.0, when - self._wall), callback)
        self._alarms.append(alarm)
        self._ring_due()
        return alarm

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._elapsed += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock by `seconds`, forward or back, while no time passes."""
        self._wall += seconds
        self._ring_due()

    @property
    def next_alarm_in_s(self) -> float | None:
        """Seconds until the first alarm that still waits, None if there is none."""
        waiting = [alarm for alarm in self._alarms if alarm.waiting]
        return min((min(one.when - self._wall, one.deadline - self._elapsed) for one in waiting), default=None)

    def _ring_due(self) -> None:
        due = [alarm for alarm in self._alarms if alarm.when <= self._wall or alarm.deadline <= self._elapsed]
        self._alarms = [alarm for alarm in self._alarms if alarm not in due and alarm.waiting]
        for alarm in sorted(due, key=lambda alarm: alarm.when):
            asyncio.get_running_loop().call_soon(alarm.ring)
