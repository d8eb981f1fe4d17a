"""An event loop whose time passes only when nothing else happens, and wall time in it.

A program in it does in no time what takes it hours, in an order that depends on nothing but the program: no thread, no
socket, no real clock.
"""

import asyncio
import selectors
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


# Rounds of a loop; a life of several sessions has some thousand.
_MOST_ROUNDS = 50_000


class StuckError(RuntimeError):
    """Everything waits for something that can never come."""


class NeverRestsError(RuntimeError):
    """So much happens, in little time, that it will never end."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: instead of sleeping, the loop sets its time forward."""

    now = 0.0
    _rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise StuckError("no callback, no timer and no socket is left to wait for")
        self._rounds += 1
        if self._rounds == _MOST_ROUNDS:  # once: what is left is dropped in this loop
            raise NeverRestsError(f"the loop has had {_MOST_ROUNDS} rounds, and there is still something to be done")
        if not ready and timeout:
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0 and jumps to the next timer when nothing is ready. Executors run in the loop itself."""

    def __init__(self) -> None:
        self._simulated = _JumpingSelector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002 - the loop is the executor
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> "asyncio.Future[T]":
        """Call `func` at once; its result is there in the loop's next round."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to who awaits it, as an executor does
            future.set_exception(error)
        return future


async def pass_time(seconds: float) -> None:
    """Let `seconds` of the running loop's time pass, which takes no time in a `SimulatedLoop`."""
    await asyncio.sleep(seconds)


class SimulatedAlarm:
    """An alarm of `SimulatedClock`."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.waiting = True
        self._callback = callback

    def cancel(self) -> None:
        self.waiting = False

    def ring(self) -> None:
        if self.waiting:
            self.waiting = False
            self._callback()


class SimulatedClock:
    """Wall time of the running loop: `start`, plus the loop's time, plus all jumps. A `runtime.clock.Clock`."""

    def __init__(self, start: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._offset = start - self._loop.time()
        self._alarms: list[SimulatedAlarm] = []

    def now(self) -> float:
        return self._offset + self._loop.time()

    def elapsed(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> SimulatedAlarm:
        alarm = SimulatedAlarm(when, callback)
        self._alarms = [*_waiting(self._alarms), alarm]
        self._loop.call_later(max(0.0, when - self.now()), alarm.ring)
        return alarm

    def jump(self, seconds: float) -> None:
        """Set the clock by `seconds`, forward or back, while no time passes; alarms that are due by it now ring."""
        self._offset += seconds
        for alarm in _waiting(self._alarms):
            if alarm.when <= self.now():
                self._loop.call_soon(alarm.ring)


def _waiting(alarms: Iterable[SimulatedAlarm]) -> list[SimulatedAlarm]:
    return [alarm for alarm in alarms if alarm.waiting]
