"""Apps that come, subscribe and go."""

import asyncio

import pytest

from everturn.dapr.wire import Request, Response
from everturn.errors import TerminalError
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Components, Subscription
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY
from tests.unit.runtime.conftest import PATIENCE_S, OpenRig, Rig, ScriptedApp, subscription
from tests.unit.runtime.pubsub.subscribers import LONGEST_DELAY_S, SUCCESS, subscribed


class NeverAsked:
    """The way to an app to which no request can be sent."""

    asked = 0

    async def send(self, _: Request) -> Response:
        self.asked += 1
        raise TerminalError("the request cannot be sent")

    async def close(self) -> None: ...


async def test_an_app_that_is_not_up_yet_is_asked_again_for_its_subscriptions(rig: Rig) -> None:
    app = ScriptedApp([subscription()])
    rig.add_app("app-a", app)
    app.away = True
    await rig.start()
    await rig.publish(1)
    await rig.settled()

    app.away = False
    rig.clock.advance(LONGEST_DELAY_S)

    await app.got(1)


async def test_an_app_that_can_never_be_asked_is_asked_once_and_the_log_says_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    app = NeverAsked()
    rig.add_app("app-a", app)

    async with asyncio.timeout(PATIENCE_S):
        await rig.start("app-a")

    (record,) = caplog.records
    assert (record.msg, vars(record)["reason"]) == ("subscriptions_failed", "the request cannot be sent")
    assert record.exc_info is None
    assert app.asked == 1


async def test_of_a_topic_that_is_declared_too_what_the_app_tells_counts(open_rig: OpenRig) -> None:
    declared = Subscription("pubsub", "orders", "/declared", scopes=frozenset({"app-a"}))
    components = Components(DEFAULT_COMPONENTS.components, (declared,), default_delivery_retry=DEFAULT_DELIVERY_RETRY)
    rig = await open_rig(components)
    app, other = ScriptedApp([subscription("orders")]), ScriptedApp()
    rig.add_app("app-a", app)
    rig.add_app("app-b", other)
    await rig.start("app-a", "app-b")

    await rig.publish(1)

    await app.got(1)
    await rig.settled()
    assert [request.target for request in app.received] == [subscription("orders")["route"]]
    assert other.received == []


async def test_a_stop_waits_for_what_is_in_flight(rig: Rig) -> None:
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    app = ScriptedApp([subscription()], [answer])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)

    stopping = asyncio.create_task(rig.blocks.broker.stop(60))
    await rig.settled()
    still_waiting = not stopping.done()
    answer.set_result(SUCCESS)
    await stopping

    assert still_waiting
    assert rig.blocks.broker.store.pending() == 0


async def test_a_stop_leaves_what_does_not_finish_for_the_next_start(rig: Rig) -> None:
    never: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    app = ScriptedApp([subscription()], [never])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)

    await rig.blocks.broker.stop(0)

    assert rig.blocks.broker.store.pending() == 1
