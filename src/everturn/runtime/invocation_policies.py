"""What Resiliency files say of calls between apps, applied: retries around a circuit breaker around a time limit.

As daprd 1.18 (pkg/resiliency/policy.go): every answer below 200 or above 399 is a failure, as no answer is.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from everturn.errors import TransientError
from everturn.runtime.circuit_breaker import CircuitBreaker, RefusedError
from everturn.runtime.clock import Clock, wait_until
from everturn.runtime.components import Components
from everturn.runtime.resiliency import NO_POLICY, TargetPolicy
from everturn.sidecar.wire import Response

log = logging.getLogger(__name__)

Send = Callable[[], Awaitable[Response]]

# Of one app; daprd's circuitBreakerCacheSize is per target.
_MAX_BREAKERS = 1_000


class InvocationPolicies:
    """The policies of all callers. A method of an app has a circuit breaker of its own, for each caller."""

    def __init__(self, components: Components, clock: Clock) -> None:
        self._components = components
        self._clock = clock
        self._breakers: OrderedDict[tuple[str, str, str], CircuitBreaker] = OrderedDict()

    async def call(self, caller: str, app_id: str, method: str, send: Send) -> Response:
        """The app's answer, whatever it is. Raises TransientError where none came, or was asked for."""
        policy = self._components.invocation_policy(caller, app_id)
        if policy is NO_POLICY:
            return await send()
        breaker = self._breaker(policy, (caller, app_id, method))
        attempts = 0
        while True:
            attempts += 1
            answer = await _try_once(policy, breaker, send)
            delay_s = _delay_s(policy, answer, attempts)
            if delay_s is None:
                break
            log.warning("call_retried", extra={"app_id": app_id, "attempt": attempts, "delay_s": round(delay_s, 3)})
            await wait_until(self._clock, self._clock.now() + delay_s)
        if isinstance(answer, Response):
            return answer
        raise answer

    def _breaker(self, policy: TargetPolicy, key: tuple[str, str, str]) -> CircuitBreaker | None:
        if policy.breaker is None:
            return None
        breaker = self._breakers.pop(key, None) or CircuitBreaker(policy.breaker, self._clock.elapsed)
        self._breakers[key] = breaker
        if len(self._breakers) > _MAX_BREAKERS:
            self._breakers.popitem(last=False)
        return breaker


async def _try_once(policy: TargetPolicy, breaker: CircuitBreaker | None, send: Send) -> Response | TransientError:
    if breaker is None:
        return await _ask(policy, send)
    try:
        generation = breaker.begin()
    except RefusedError as refused:
        return TransientError(str(refused), kind="refused")
    success = False
    try:
        answer = await _ask(policy, send)
        success = not _failed(answer)
    finally:  # a caller that left counts as a failure, as on Dapr
        breaker.end(generation, success=success)
    return answer


async def _ask(policy: TargetPolicy, send: Send) -> Response | TransientError:
    try:
        async with asyncio.timeout(policy.timeout_s) if policy.timeout_s is not None else nullcontext():
            return await send()
    except TransientError as error:
        return error
    except TimeoutError:
        return TransientError("context deadline exceeded", kind="timeout")


def _failed(answer: Response | TransientError) -> bool:
    return isinstance(answer, TransientError) or not 200 <= answer.status < 400


def _delay_s(policy: TargetPolicy, answer: Response | TransientError, attempts: int) -> float | None:
    """Seconds to the next try, None where this answer is the last."""
    if policy.retry is None or not _failed(answer):
        return None
    if isinstance(answer, TransientError):
        if answer.kind == "refused":
            return None
    elif not policy.retry.is_for(answer.status):
        return None
    return policy.retry.delay_s(attempts, random.random)
