"""A circuit breaker: when it opens, and how it closes again."""

import pytest

from everturn.errors import TransientError
from everturn.runtime.invocation.circuit_breaker import CircuitBreaker, State
from everturn.runtime.resources.resiliency import BreakerPolicy, Condition
from everturn.testing.clock import ManualClock


def breaker(clock: ManualClock, **policy: float | int) -> CircuitBreaker:
    given = BreakerPolicy((Condition("consecutiveFailures", ">", 1),), **policy)  # type: ignore[arg-type]
    return CircuitBreaker(given, clock.now)


def fail(broken: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        broken.end(broken.begin(), success=False)


def test_a_breaker_opens_when_its_condition_holds_and_half_opens_after_its_time() -> None:
    clock = ManualClock()
    broken = breaker(clock, timeout_s=10)
    fail(broken, 1)
    broken.end(broken.begin(), success=True)
    fail(broken, 1)
    still = broken.state
    fail(broken, 1)
    then = broken.state

    clock.advance(10)

    assert (still, then, broken.state) == (State.CLOSED, State.OPEN, State.HALF_OPEN)


def test_a_half_open_breaker_lets_so_many_try_and_closes_when_they_succeed() -> None:
    clock = ManualClock()
    broken = breaker(clock, timeout_s=10, max_requests=2)
    fail(broken, 2)
    clock.advance(10)

    one, two = broken.begin(), broken.begin()
    with pytest.raises(TransientError, match="too many requests"):
        broken.begin()
    broken.end(one, success=True)
    between = broken.state
    broken.end(two, success=True)

    assert (between, broken.state) == (State.HALF_OPEN, State.CLOSED)


def test_a_failed_try_opens_it_again() -> None:
    clock = ManualClock()
    broken = breaker(clock, timeout_s=10)
    fail(broken, 2)
    clock.advance(10)

    fail(broken, 1)

    assert broken.state is State.OPEN


def test_counts_of_a_closed_one_start_again_with_its_interval() -> None:
    clock = ManualClock()
    broken = breaker(clock, interval_s=8)
    fail(broken, 1)
    clock.advance(8)

    fail(broken, 1)

    assert broken.state is State.CLOSED


def test_a_call_from_before_the_breaker_changed_counts_no_more() -> None:
    clock = ManualClock()
    broken = breaker(clock, timeout_s=10)
    late = broken.begin()
    fail(broken, 2)
    clock.advance(10)
    assert broken.state is State.HALF_OPEN

    broken.end(late, success=True)

    assert broken.state is State.HALF_OPEN
