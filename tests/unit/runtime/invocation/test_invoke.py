"""Calls between apps: what Resiliency files do to them, and the path that arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from everturn.dapr.wire import Request, Response
from everturn.errors import TerminalError, TransientError
from everturn.runtime.invocation.invoke import InvocationPolicies, onward_path
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Components
from everturn.runtime.resources.resiliency import BreakerPolicy, Condition, ResiliencyRules, RetryPolicy, TargetPolicy
from everturn.testing.clock import ManualClock
from tests.unit.runtime.conftest import PATIENCE_S, Rig, ScriptedApp

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


async def test_an_invocation_is_under_the_policy_of_its_target(
    open_rig: Callable[..., Awaitable[Rig]],
) -> None:
    rules = ResiliencyRules(apps={"app-b": TargetPolicy(retry=RetryPolicy(duration_s=0, max_retries=1))})
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, rules=(rules,)))
    app = ScriptedApp(answers=[BAD])
    rig.add_app("app-b", app)

    response = await rig.api().handle(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert response.status == 200
    assert len(app.received) == 2


async def test_a_request_that_can_never_be_sent_is_refused_at_once_and_says_why(
    open_rig: Callable[..., Awaitable[Rig]],
) -> None:
    rules = ResiliencyRules(apps={"app-b": TargetPolicy(retry=RetryPolicy(duration_s=0, max_retries=3))})
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, rules=(rules,)))
    app = ScriptedApp(default=TerminalError("the request cannot be sent"))
    rig.add_app("app-b", app)

    response = await rig.api().handle(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert response.status == 500
    assert b"ERR_DIRECT_INVOKE" in response.body
    assert b"the request cannot be sent" in response.body
    assert len(app.received) == 1


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/conversations/a", "/conversations/a"),
        ("/conversations/a%20b", "/conversations/a%20b"),
        ("/conversations/%C3%A9", "/conversations/%C3%A9"),
        ("/conversations/a%252Fb", "/conversations/a%2Fb"),
        ("/conversations/a%2Fb", "/conversations/a/b"),
        ("/conversations/a%2525b", "/conversations/a%25b"),
        ("/conversations/%252E%252E", "/conversations/%2E%2E"),
        ("/conversations/%2E%2E", "/"),
        ("/../../x", "/x"),
        ("/a//b", "/a/b"),
        ("/chat/", "/chat"),
        ("/", "/"),
    ],
)
def test_a_path_is_decoded_once_and_cleaned(sent: str, arrives: str) -> None:
    assert onward_path(sent) == arrives


@pytest.mark.parametrize("sent", ["/a%3Fb", "/a%23b", "/a%00", "/a%0A", "/a%7F", "/a%25b", "/a%25"])
def test_a_path_that_cannot_be_handed_on_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match=r"method|escape"):
        onward_path(sent)
