"""Publishing and delivering over a real database: what is taken, retried, refused."""

import asyncio
import json

import pytest

from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TerminalError, TransientError
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Components
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY, NO_RETRY, ResiliencyRules, RetryPolicy
from tests.unit.runtime.conftest import OpenRig, Rig, ScriptedApp, subscription, unreachable
from tests.unit.runtime.pubsub.subscribers import DROP, LONGEST_DELAY_S, RETRY, SUCCESS, subscribed


async def test_a_published_message_is_posted_to_the_route(rig: Rig) -> None:
    app = ScriptedApp([subscription("orders")])
    await subscribed(rig, app)

    response = await rig.publish({"n": 1})

    (request,) = await app.got(1)
    assert (response.status, response.body) == (204, b"")
    assert (request.method, request.target) == ("POST", "/orders")
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert json.loads(request.body)["data"] == {"n": 1}


async def test_the_app_is_shown_its_token(rig: Rig) -> None:
    app = ScriptedApp([subscription()])
    rig.add_app("app-a", app, token="app-secret")
    await rig.start("app-a")

    await rig.publish(1)

    (request,) = await app.got(1)
    assert request.headers["dapr-api-token"] == "app-secret"


async def test_each_subscribing_app_gets_the_message(rig: Rig) -> None:
    first, second, other = ScriptedApp([subscription()]), ScriptedApp([subscription()]), ScriptedApp()
    rig.add_app("app-a", first)
    rig.add_app("app-b", second)
    rig.add_app("app-c", other)
    await rig.start("app-a", "app-b", "app-c")

    await rig.publish(1)

    await first.got(1)
    await second.got(1)
    await rig.settled()
    assert other.received == []


@pytest.mark.parametrize(
    "answer", [Response(200), SUCCESS, Response(204), Response(200, {}, b"not json"), Response(200, {}, b'{"a":1}')]
)
async def test_an_acknowledged_message_is_gone(rig: Rig, answer: Response) -> None:
    app = ScriptedApp([subscription()], [answer])
    await subscribed(rig, app)

    await rig.publish(1)

    await app.got(1)
    await rig.settled()
    assert rig.database.read("SELECT * FROM messages") == []
    assert rig.database.read("SELECT * FROM deliveries") == []
    assert rig.blocks.broker.counts.delivered == 1


@pytest.mark.parametrize(
    "answer",
    [
        RETRY,
        Response(200, {}, b'{"status":"LATER"}'),
        Response(200, {}, b'{"status":[1]}'),
        Response(500),
        Response(503),
        Response(401),
        Response(302),
        TransientError("no answer in time", kind="timeout"),
    ],
)
async def test_a_message_that_is_not_taken_comes_again_after_a_delay(rig: Rig, answer: Response | Exception) -> None:
    app = ScriptedApp([subscription(deadLetterTopic="dead")], [answer])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()
    before = len(app.received)

    rig.clock.advance(LONGEST_DELAY_S)

    first, second = await app.got(2)
    assert before == 1
    assert first.body == second.body
    assert rig.blocks.broker.counts.retried == 1


@pytest.mark.parametrize("answer", [DROP, Response(404)])
async def test_a_refused_message_goes_to_the_dead_letters_at_once(rig: Rig, answer: Response) -> None:
    app = ScriptedApp([subscription(deadLetterTopic="dead")], [answer])
    await subscribed(rig, app)

    await rig.publish({"n": 1})

    await app.got(1)
    await rig.settled()
    (letter,) = rig.blocks.broker.store.messages(("pubsub", "dead"), 10)
    assert json.loads(letter)["data"] == {"n": 1}
    assert rig.blocks.broker.counts.dead_letters == 1
    assert rig.blocks.broker.store.pending() == 0


async def test_a_dead_letter_is_delivered_to_those_who_subscribe_to_them_and_is_kept(rig: Rig) -> None:
    app = ScriptedApp([subscription(deadLetterTopic="dead"), subscription("dead")], [DROP])
    await subscribed(rig, app)

    await rig.publish({"n": 1})

    refused, letter = await app.got(2)
    await rig.settled()
    assert letter.target == "/dead"
    assert letter.body == refused.body
    assert rig.blocks.broker.store.pending() == 0
    assert rig.blocks.broker.store.messages(("pubsub", "dead"), 10) == [letter.body]


async def test_a_refused_message_without_a_dead_letter_topic_is_dropped_and_counted(rig: Rig) -> None:
    app = ScriptedApp([subscription()], [DROP])
    await subscribed(rig, app)

    await rig.publish(1)

    await app.got(1)
    await rig.settled()
    assert rig.blocks.broker.counts.dropped == 1
    assert rig.database.read("SELECT * FROM messages") == []


async def test_out_of_retries_a_message_goes_to_the_dead_letters(open_rig: OpenRig) -> None:
    policy = RetryPolicy(duration_s=1, max_retries=1)
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, rules=(ResiliencyRules({"pubsub": policy}),)))
    app = ScriptedApp([subscription(deadLetterTopic="dead")], default=RETRY)
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    rig.clock.advance(1)

    await app.got(2)
    await rig.settled()
    assert rig.blocks.broker.counts.dead_letters == 1
    assert rig.blocks.broker.store.pending() == 0


async def test_without_a_policy_the_first_retry_goes_to_the_dead_letters(open_rig: OpenRig) -> None:
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, default_delivery_retry=NO_RETRY))
    app = ScriptedApp([subscription(deadLetterTopic="dead")], [RETRY])
    await subscribed(rig, app)

    await rig.publish(1)

    await app.got(1)
    await rig.settled()
    assert rig.blocks.broker.counts.dead_letters == 1


async def test_without_a_policy_and_dead_letters_a_message_is_tried_again(open_rig: OpenRig) -> None:
    rig = await open_rig(Components(DEFAULT_COMPONENTS.components, default_delivery_retry=NO_RETRY))
    app = ScriptedApp([subscription()], [RETRY])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    rig.clock.advance(LONGEST_DELAY_S)

    await app.got(2)


async def test_while_one_message_is_retried_later_ones_are_delivered(rig: Rig) -> None:
    app = ScriptedApp([subscription()], [RETRY])
    await subscribed(rig, app)
    await rig.publish("fails")
    await app.got(1)
    await rig.settled()

    await rig.publish("later")

    await app.got(2)
    assert app.bodies() == ["fails", "later"]


async def test_a_slow_delivery_does_not_hold_up_the_next(rig: Rig) -> None:
    slow: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    app = ScriptedApp([subscription()], [slow])
    await subscribed(rig, app)
    await rig.publish("slow")
    await app.got(1)

    await rig.publish("next")

    await app.got(2)
    slow.set_result(SUCCESS)
    await rig.settled()
    assert rig.blocks.broker.store.pending() == 0


async def test_deliveries_at_once_are_bounded_and_none_is_forgotten(rig: Rig) -> None:
    gate: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    app = ScriptedApp([subscription()], [gate] * 32)
    await subscribed(rig, app)

    await asyncio.gather(*(rig.publish(n) for n in range(100)))

    await app.got(32)
    await rig.settled()
    at_once = len(app.received)
    gate.set_result(SUCCESS)
    await app.got(100)
    await rig.settled()
    assert at_once == 32
    assert sorted(app.bodies()) == list(range(100))
    assert rig.blocks.broker.store.pending() == 0


async def test_an_app_that_cannot_be_reached_is_left_alone_and_then_gets_everything(rig: Rig) -> None:
    app = ScriptedApp([subscription(deadLetterTopic="dead")], [unreachable(), unreachable()])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    await rig.publish(2)
    await rig.settled()
    tried_while_paused = len(app.received)
    rig.clock.advance(LONGEST_DELAY_S)
    await app.got(2)
    await rig.settled()
    rig.clock.advance(LONGEST_DELAY_S)

    await app.got(4)
    await rig.settled()
    assert tried_while_paused == 1
    assert sorted(app.bodies()[2:]) == [1, 2]
    assert rig.blocks.broker.counts.dead_letters == 0
    assert rig.blocks.broker.store.pending() == 0


async def test_not_reaching_an_app_uses_up_no_attempt(open_rig: OpenRig) -> None:
    once = Components(DEFAULT_COMPONENTS.components, default_delivery_retry=NO_RETRY)
    rig = await open_rig(once)
    app = ScriptedApp([subscription(deadLetterTopic="dead")], [unreachable()])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    rig.clock.advance(LONGEST_DELAY_S)

    await app.got(2)
    await rig.settled()
    assert (rig.blocks.broker.counts.dead_letters, rig.blocks.broker.counts.delivered) == (0, 1)


async def test_an_app_to_which_nothing_can_be_sent_is_left_alone_and_loses_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    app = ScriptedApp([subscription(deadLetterTopic="dead")], default=TerminalError("the request cannot be sent"))
    await subscribed(rig, app)

    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    assert [(record.msg, vars(record)["reason"]) for record in caplog.records] == [
        ("app_unreachable", "the request cannot be sent")
    ]
    assert rig.blocks.broker.counts.dead_letters == 0
    assert rig.blocks.broker.store.pending() == 1


async def test_an_app_that_is_back_gets_what_waits_at_once(rig: Rig) -> None:
    app = ScriptedApp([subscription()])
    rig.add_app("app-a", app)
    await rig.start("app-a")
    app.away = True
    await rig.publish(1)
    await rig.settled()
    while_away = len(app.received)

    app.away = False
    rig.blocks.broker.app_is_back("app-a")

    await app.got(1)
    assert while_away == 0


async def test_a_publish_that_cannot_be_written_is_an_error(rig: Rig) -> None:
    await rig.database.close()

    response = await rig.publish(1)

    assert (response.status, json.loads(response.body)["errorCode"]) == (500, "ERR_PUBSUB_PUBLISH_MESSAGE")


async def test_an_unknown_pubsub_is_404(sidecar: Transport) -> None:
    response = await sidecar.send(Request("POST", "/v1.0/publish/other/orders", {}, b"1"))

    assert (response.status, json.loads(response.body)["errorCode"]) == (404, "ERR_PUBSUB_NOT_FOUND")


@pytest.mark.parametrize("answer", [RETRY, unreachable()], ids=["a message to retry", "an app that was away"])
async def test_a_clock_that_is_set_back_holds_nothing(rig: Rig, answer: Response | TransientError) -> None:
    app = ScriptedApp([subscription()], [answer])
    await subscribed(rig, app)
    await rig.publish(1)
    await app.got(1)
    await rig.settled()

    rig.clock.jump(-86_400)
    rig.clock.advance(LONGEST_DELAY_S)

    await app.got(2)


async def test_the_delay_grows_up_to_its_cap() -> None:
    middle = lambda: 0.5  # noqa: E731 - the middle of the jitter

    delays = [DEFAULT_DELIVERY_RETRY.delay_s(attempt, middle) for attempt in (1, 2, 3, 1_000_000)]

    assert delays == [0.5, 0.75, 1.125, 15.0]


async def test_the_delay_is_spread_by_half_of_it() -> None:
    shortest, longest = (DEFAULT_DELIVERY_RETRY.delay_s(1, lambda: edge) for edge in (0.0, 1.0))  # noqa: B023

    assert (shortest, longest) == (0.25, 0.75)
