"""Messages that fall due at a bad moment: none of them is forgotten."""

import asyncio

import pytest

from everturn.dapr.wire import Response
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Components
from everturn.runtime.resources.resiliency import ResiliencyRules, RetryPolicy
from everturn.testing.clock import ManualClock
from tests.unit.runtime.conftest import OpenRig, Rig, ScriptedApp, subscription
from tests.unit.runtime.pubsub.subscribers import LONGEST_DELAY_S, RETRY, SUCCESS, subscribed
from tests.unit.runtime.workflow.faulty_database import FaultyDatabase


class CreepingClock(ManualClock):
    """Goes on by a millisecond each time that it is read, once `creeping`."""

    creeping = False

    def now(self) -> float:
        if self.creeping:
            self._wall += 0.001
        return self._wall


@pytest.mark.parametrize("reading", range(5))
async def test_a_message_that_falls_due_while_it_is_looked_for_is_not_forgotten(
    open_rig: OpenRig, reading: int
) -> None:
    clock = CreepingClock()
    policy = RetryPolicy(duration_s=1, max_retries=-1)
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, rules=(ResiliencyRules({"pubsub": policy}),)), clock)
    app = ScriptedApp([subscription()], answers=[RETRY])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    clock.jump(-0.0005 - 0.001 * reading)
    clock.creeping = True
    clock.advance(1)
    await rig.settled()
    clock.advance(1)

    await app.got(2)


async def test_pauses_grow_while_a_full_disk_refuses_to_note_what_was_delivered(
    open_rig: OpenRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = await open_rig(kind=FaultyDatabase)
    assert isinstance(rig.database, FaultyDatabase)
    app = ScriptedApp([subscription()], [taken_as_it_fills(rig.database)])
    await subscribed(rig, app)
    await rig.publish(1)

    for _ in range(4 * 60):
        await rounds_of_the_loop()
        rig.clock.advance(0.25)
    in_the_first_minute = len(app.received)
    rig.database.full = False
    rig.clock.advance(LONGEST_DELAY_S)
    await app.got(in_the_first_minute + 1)
    await rig.settled()

    assert 4 <= in_the_first_minute <= 25
    assert [record.msg for record in caplog.records] == ["delivery_not_settled"] * in_the_first_minute
    assert rig.blocks.broker.store.pending() == 0


async def test_after_a_full_disk_messages_are_delivered_at_once_again(open_rig: OpenRig) -> None:
    rig = await open_rig(kind=FaultyDatabase)
    assert isinstance(rig.database, FaultyDatabase)
    app = ScriptedApp([subscription()], [taken_as_it_fills(rig.database)])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rounds_of_the_loop()
    rig.database.full = False
    rig.clock.advance(LONGEST_DELAY_S)
    await app.got(2)
    await rig.settled()

    for number in range(2, 6):
        await rig.publish(number)

    await app.got(6)
    await rig.settled()
    assert rig.blocks.broker.store.pending() == 0


async def taken_as_it_fills(database: FaultyDatabase) -> Response:
    """The message is on disk by now; that it is delivered cannot be noted."""
    database.full = True
    return SUCCESS


async def rounds_of_the_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_message_that_falls_due_while_there_is_no_room_is_not_forgotten(rig: Rig) -> None:
    gate: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    app = ScriptedApp([subscription()], [RETRY, *[gate] * 32])
    await subscribed(rig, app)
    await rig.publish("again")
    await app.got(1)
    await rig.settled()
    for n in range(32):
        await rig.publish(n)
    await app.got(33)

    rig.clock.advance(LONGEST_DELAY_S)
    await rig.settled()
    gate.set_result(SUCCESS)

    await app.got(34)
