"""A circuit breaker, as the one that Dapr uses (github.com/sony/gobreaker v0.5.0)."""

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum, auto

from everturn.errors import TransientError
from everturn.runtime.resources.resiliency import BreakerPolicy

_OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class State(Enum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class CircuitBreaker:
    """`begin` before each call, `end` after it. `now`: seconds that only go forward."""

    def __init__(self, policy: BreakerPolicy, now: Callable[[], float]) -> None:
        self._policy = policy
        self._now = now
        self._state = State.CLOSED
        self._counts: Counter[str] = Counter()  # by the names of Dapr's `trip` expressions
        self._generation = 0
        self._ends_at: float | None = None
        self._become(State.CLOSED)

    @property
    def state(self) -> State:
        if self._ends_at is not None and self._now() >= self._ends_at:
            self._become(State.HALF_OPEN if self._state is State.OPEN else State.CLOSED)
        return self._state

    def begin(self) -> int:
        """A number for `end`. Raises TransientError (kind `refused`), in Dapr's words, if none is let through now."""
        state = self.state
        if state is State.OPEN:
            raise TransientError("circuit breaker is open", kind="refused")
        if state is State.HALF_OPEN and self._counts["requests"] >= self._policy.max_requests:
            raise TransientError("too many requests", kind="refused")
        self._counts["requests"] += 1
        return self._generation

    def end(self, generation: int, *, success: bool) -> None:
        """How a call ended. One that began before the breaker changed does not count."""
        state = self.state
        if generation != self._generation:
            return
        counts = self._counts
        how, other = ("Successes", "Failures") if success else ("Failures", "Successes")
        counts[f"total{how}"] += 1
        counts[f"consecutive{how}"] += 1
        counts[f"consecutive{other}"] = 0
        if success:
            if state is State.HALF_OPEN and counts["consecutiveSuccesses"] >= self._policy.max_requests:
                self._become(State.CLOSED)
        elif state is State.HALF_OPEN or self._trips():
            self._become(State.OPEN)

    def _trips(self) -> bool:
        return all(_OPERATORS[item.op](self._counts[item.count], item.limit) for item in self._policy.trip)

    def _become(self, state: State) -> None:
        self._state = state
        self._counts = Counter()
        self._generation += 1
        lasts_s = {State.CLOSED: self._policy.interval_s, State.OPEN: self._policy.timeout_s, State.HALF_OPEN: 0.0}[
            state
        ]
        self._ends_at = self._now() + lasts_s if lasts_s > 0 else None
