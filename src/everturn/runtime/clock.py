"""Wall time and alarms: the one thing of the outside that the runtime's waiting depends on.

Wall time, because what waits on disk must come due after a restart too. A test moves the one in
`everturn.testing.clock`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

# A longer wait is cut into pieces of this length, so that a clock that was set forward is noticed within it.
_LONGEST_NAP_S = 30.0


class Alarm(Protocol):
    def cancel(self) -> None:
        """Do not ring. Does nothing after the alarm has rung."""
        ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call `callback` in the running loop once `now()` is at or after `when`; never at once, never earlier."""
        ...


class SystemClock:
    """The machine's clock. A jump of it moves the alarms along: they ring by wall time, not by elapsed time."""

    def now(self) -> float:
        return time.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        return _SystemAlarm(when, callback)


class _SystemAlarm:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self._when = when
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle = self._nap()

    def cancel(self) -> None:
        self._handle.cancel()

    def _nap(self) -> asyncio.TimerHandle:
        return self._loop.call_later(min(max(0.0, self._when - time.time()), _LONGEST_NAP_S), self._wake)

    def _wake(self) -> None:
        if time.time() < self._when:
            self._handle = self._nap()
        else:
            self._callback()
