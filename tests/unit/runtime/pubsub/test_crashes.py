"""Topics over a crash: what is taken is delivered, what is acknowledged does not come again."""

import asyncio

from everturn.dapr.wire import Response
from tests.unit.runtime.conftest import OpenRig, Rig, ScriptedApp, subscription, unreachable
from tests.unit.runtime.pubsub.subscribers import LONGEST_DELAY_S, RETRY, subscribed


async def test_a_message_is_delivered_after_a_crash_before_its_delivery(open_rig: OpenRig) -> None:
    before = await open_rig()
    gone = ScriptedApp([subscription()], default=unreachable())
    await subscribed(before, gone)
    await before.publish(1)
    await gone.got(1)

    after = await open_rig(clock=before.clock)
    app = ScriptedApp([subscription()])
    await subscribed(after, app)

    await app.got(1)
    assert app.bodies() == [1]


async def test_a_message_that_was_being_delivered_at_a_crash_is_delivered_again(open_rig: OpenRig) -> None:
    before = await open_rig()
    never: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    cut_off = ScriptedApp([subscription()], [never])
    await subscribed(before, cut_off)
    await before.publish(1)
    await cut_off.got(1)

    after = await open_rig()
    app = ScriptedApp([subscription()])
    await subscribed(after, app)

    await app.got(1)
    assert app.received[0].body == cut_off.received[0].body
    never.cancel()


async def test_a_message_published_while_its_known_subscriber_is_not_back_waits_for_it(open_rig: OpenRig) -> None:
    before = await open_rig()
    await subscribed(before, ScriptedApp([subscription()]))

    after = await open_rig()
    await after.publish(1)
    app = ScriptedApp([subscription()])
    await subscribed(after, app)

    await app.got(1)


async def test_attempts_and_the_time_of_the_next_one_outlive_a_crash(open_rig: OpenRig) -> None:
    before = await open_rig()
    failing = ScriptedApp([subscription()], [RETRY])
    await subscribed(before, failing)
    await before.publish(1)
    await failing.got(1)
    await before.settled()

    after = await open_rig(clock=before.clock)
    app = ScriptedApp([subscription()])
    await subscribed(after, app)
    await after.settled()
    too_early = len(app.received)
    after.clock.advance(LONGEST_DELAY_S)

    await app.got(1)
    assert too_early == 0


async def test_an_acknowledged_message_does_not_come_again_after_a_crash(open_rig: OpenRig) -> None:
    before = await open_rig()
    app = ScriptedApp([subscription()])
    await subscribed(before, app)
    await before.publish(1)
    await app.got(1)
    await before.settled()

    after = await open_rig()
    again = ScriptedApp([subscription()])
    await subscribed(after, again)
    await after.settled()

    assert again.received == []


async def test_a_first_subscriber_gets_what_was_published_before_it_came(rig: Rig) -> None:
    await rig.publish(1)
    app = ScriptedApp([subscription()])

    await subscribed(rig, app)

    await app.got(1)


async def test_a_subscription_that_an_app_gave_up_holds_no_message(open_rig: OpenRig) -> None:
    before = await open_rig()
    rig_app = ScriptedApp([subscription()], default=unreachable())
    other = ScriptedApp([subscription()])
    before.add_app("app-a", rig_app)
    before.add_app("app-b", other)
    await before.start("app-a", "app-b")
    await before.publish(1)
    await other.got(1)
    await before.settled()

    after = await open_rig()
    await subscribed(after, ScriptedApp())

    assert after.database.read("SELECT * FROM deliveries") == []
    assert after.database.read("SELECT * FROM messages") == []
