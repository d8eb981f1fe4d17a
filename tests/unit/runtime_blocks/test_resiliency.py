"""Resiliency files for calls between apps: what is read, and what it does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everturn.errors import StartError, TransientError
from everturn.runtime.circuit_breaker import CircuitBreaker, RefusedError, State
from everturn.runtime.components import DEFAULT_COMPONENTS, Components, read_components
from everturn.runtime.invocation_policies import InvocationPolicies
from everturn.runtime.resiliency import BreakerPolicy, Condition, RetryPolicy, TargetPolicy
from everturn.runtime.resiliency_file import ResiliencyRules
from everturn.sidecar.wire import Request, Response
from everturn.testing.clock import ManualClock
from tests.unit.runtime_blocks.conftest import PATIENCE_S, Rig, ScriptedApp

WHOLE = """
kind: Resiliency
metadata: {name: r}
scopes: [caller]
spec:
  policies:
    timeouts: {short: 250ms}
    retries:
      few: {policy: constant, duration: 2s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}
    circuitBreakers:
      careful: {maxRequests: 2, interval: 8s, timeout: 45s, trip: requests >= 3 && consecutiveFailures > 1}
      plain: {}
  targets:
    apps:
      callee: {timeout: short, retry: few, circuitBreaker: careful}
      other: {circuitBreaker: plain}
"""


def written(folder: Path, text: str) -> Components:
    (folder / "file.yaml").write_text(text, "utf-8")
    return read_components(folder)


def test_what_a_file_says_of_calls_is_read(tmp_path: Path) -> None:
    components = written(tmp_path, WHOLE)

    assert components.invocation_policy("caller", "callee") == TargetPolicy(
        0.25,
        RetryPolicy(duration_s=2.0, max_retries=3, statuses=((429, 429), (500, 599))),
        BreakerPolicy(
            (Condition("requests", ">=", 3), Condition("consecutiveFailures", ">", 1)),
            interval_s=8.0,
            timeout_s=45.0,
            max_requests=2,
        ),
    )
    assert components.invocation_policy("caller", "other") == TargetPolicy(breaker=BreakerPolicy())


def test_it_is_for_the_apps_of_its_scopes_and_the_targets_that_it_names(tmp_path: Path) -> None:
    components = written(tmp_path, WHOLE)

    assert components.invocation_policy("stranger", "callee") == TargetPolicy()
    assert components.invocation_policy("caller", "stranger") == TargetPolicy()


def test_a_policy_of_deliveries_is_for_the_apps_of_its_scopes(tmp_path: Path) -> None:
    components = written(
        tmp_path,
        "kind: Resiliency\nscopes: [a]\nspec:\n  policies: {retries: {few: {maxRetries: 3}}}\n"
        "  targets: {components: {pubsub: {inbound: {retry: few}}}}",
    )

    assert components.delivery_retry("pubsub", "a").max_retries == 3
    assert components.delivery_retry("pubsub", "b").max_retries == 0


def test_what_is_of_no_effect_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        written(
            tmp_path,
            "kind: Resiliency\nspec:\n  policies: {timeouts: {DefaultTimeoutPolicy: 5s, t: 1s}}\n"
            "  targets:\n    components: {pubsub: {outbound: {timeout: t}, inbound: {circuitBreaker: c}}}\n"
            "    actors: {MyActor: {timeout: t}}",
        )

    (record,) = [item for item in caplog.records if item.message == "resiliency_ignored"]
    assert record.__dict__["what"].split(", ") == [
        "targets.components.pubsub.inbound.circuitBreaker",
        "targets.components.pubsub.outbound.timeout",
        "targets.actors.MyActor",
        "policies.timeouts.DefaultTimeoutPolicy as a default",
    ]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("targets: {apps: {a: {timeout: gone}}}", "no timeout 'gone'"),
        ("targets: {apps: {a: {retry: gone}}}", "no retry policy 'gone'"),
        ("targets: {apps: {a: {circuitBreaker: gone}}}", "no circuit breaker 'gone'"),
        (
            "policies: {circuitBreakers: {c: {trip: size(x) > 1}}}\n  targets: {apps: {a: {circuitBreaker: c}}}",
            "is not understood",
        ),
        ("policies: {retries: {r: {matching: {httpStatusCodes: some}}}}", "'some' is no HTTP status"),
        ("policies: {timeouts: {t: soon}}\n  targets: {apps: {a: {timeout: t}}}", "'soon' is no duration"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_the_start(tmp_path: Path, spec: str, sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        written(tmp_path, f"kind: Resiliency\nspec:\n  {spec}")


GOOD, BAD = Response(200), Response(503, {}, b"busy")


@dataclass
class Callee:
    """Gives its answers one after the other, the last one for ever."""

    answers: list[Response | TransientError]
    calls: int = 0
    _called: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def send(self) -> Response:
        async with self._called:
            answer = self.answers[min(self.calls, len(self.answers) - 1)]
            self.calls += 1
            self._called.notify_all()
        if isinstance(answer, TransientError):
            raise answer
        return answer

    async def called(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._called:
            await self._called.wait_for(lambda: self.calls >= times)


def policies(
    policy: TargetPolicy, clock: ManualClock
) -> Callable[[Callable[[], Awaitable[Response]]], Awaitable[Response]]:
    rules = ResiliencyRules(apps={"callee": policy})
    made = InvocationPolicies(Components(DEFAULT_COMPONENTS.components, rules=(rules,)), clock)
    return lambda send: made.call("caller", "callee", "/method", send)


TWICE = RetryPolicy(duration_s=2.0, max_retries=2)


@pytest.mark.parametrize("first", [BAD, Response(404), TransientError("away", kind="unreachable")])
async def test_a_failed_call_is_tried_again_after_its_delay(first: Response | TransientError) -> None:
    clock, callee = ManualClock(), Callee([first, GOOD])
    asking = asyncio.ensure_future(policies(TargetPolicy(retry=TWICE), clock)(callee.send))
    await callee.called(1)
    for _ in range(3):
        await asyncio.sleep(0)
    before = callee.calls

    clock.advance(2)

    assert await asking == GOOD
    assert (before, callee.calls) == (1, 2)


async def test_the_last_answer_is_the_callers_when_all_tries_have_failed() -> None:
    callee = Callee([BAD])

    answer = await policies(TargetPolicy(retry=RetryPolicy(duration_s=0, max_retries=2)), ManualClock())(callee.send)

    assert (answer, callee.calls) == (BAD, 3)


async def test_an_answer_that_is_not_worth_it_is_not_asked_for_again() -> None:
    callee = Callee([Response(404), GOOD])
    policy = TargetPolicy(retry=RetryPolicy(duration_s=0, statuses=((500, 599),)))

    answer = await policies(policy, ManualClock())(callee.send)

    assert (answer.status, callee.calls) == (404, 1)


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    async def never() -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TransientError, match="context deadline exceeded"):
        await policies(TargetPolicy(timeout_s=0.001), ManualClock())(never)


async def test_an_open_breaker_answers_for_the_app_and_is_not_tried_again() -> None:
    clock, callee = ManualClock(), Callee([BAD, GOOD])
    trip = (Condition("consecutiveFailures", ">=", 1),)
    call = policies(TargetPolicy(retry=TWICE, breaker=BreakerPolicy(trip, timeout_s=5)), clock)
    asking = asyncio.ensure_future(call(callee.send))
    await callee.called(1)
    for _ in range(3):
        await asyncio.sleep(0)

    clock.advance(2)  # for the one more try that finds the breaker open
    with pytest.raises(TransientError, match="circuit breaker is open"):
        async with asyncio.timeout(PATIENCE_S):
            await asking
    refused = callee.calls
    clock.advance(3)
    answer = await call(callee.send)

    assert refused == 1
    assert answer == GOOD


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
    with pytest.raises(RefusedError, match="too many requests"):
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


def test_counts_of_a_closed_one_begin_anew_with_its_interval() -> None:
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


async def test_an_invocation_is_under_the_policy_of_its_target(
    open_rig: Callable[..., Awaitable[Rig]],
) -> None:
    rules = ResiliencyRules(apps={"app-b": TargetPolicy(retry=RetryPolicy(duration_s=0, max_retries=1))})
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, rules=(rules,)))
    app = ScriptedApp(answers=[BAD])
    rig.add_app("app-b", app)

    response = await rig.front().handle(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert response.status == 200
    assert len(app.received) == 2
