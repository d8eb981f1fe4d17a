"""Wall time and alarms: all that the runtime's waiting depends on outside of it.

Wall time, because what waits on disk must come due after a restart too. A test moves the one in
`everturn.testing.clock`.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
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

    def elapsed(self) -> float:
        """Seconds since some moment of this process; nobody can set them."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        """Call `callback` in the running loop, never at once, when `now()` has come to `when`.

        If the clock is set back meanwhile: when as much time has passed as was asked for.
        """
        ...


def rfc3339(seconds: float, timespec: str = "seconds") -> str:
    """Seconds since 1970-01-01 UTC as text, with `Z`; `timespec` as of `datetime.isoformat`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


async def sleep(clock: Clock, seconds: float) -> None:
    """Return when an alarm in `seconds` rings."""
    rung = asyncio.Event()
    alarm = clock.call_at(clock.now() + seconds, rung.set)
    try:
        await rung.wait()
    finally:
        alarm.cancel()


class SystemClock:
    """The machine's clock. If it jumps, alarms ring by wall time or by elapsed time, whichever is first."""

    def now(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> Alarm:
        return _SystemAlarm(when, callback)


class _SystemAlarm:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self._when = when
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + max(0.0, when - time.time())
        self._handle: asyncio.TimerHandle = self._nap()

    def cancel(self) -> None:
        self._handle.cancel()

    def _nap(self) -> asyncio.TimerHandle:
        left_s = min(self._when - time.time(), self._deadline - self._loop.time(), _LONGEST_NAP_S)
        return self._loop.call_later(max(0.0, left_s), self._wake)

    def _wake(self) -> None:
        if time.time() < self._when and self._loop.time() < self._deadline:
            self._handle = self._nap()
        else:
            self._callback()
