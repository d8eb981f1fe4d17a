"""Runtimes of one data folder: each with its own database, together one system."""

import asyncio
import json
from pathlib import Path

import pytest

from everturn.runtime.peers.folder import PeerFolder
from tests.unit.runtime.grpc.task_hub_rig import until
from tests.unit.runtime.peers.conftest import App, Running, Runtimes

TOPIC = ("pubsub", "news")


async def until_known(subscriber: Running, publisher: Running, app_id: str) -> None:
    """Until the publisher counts the other's app among its subscribers."""
    await subscriber.look()

    def known() -> bool:
        publisher.clock.advance(1)
        return bool(publisher.runtime.broker.subscriptions_of(app_id))

    await until(known)


async def pair(runtimes: Runtimes, listener: App) -> tuple[Running, Running]:
    """A publisher, and the runtime of `listener`, of which it knows."""
    publisher = await runtimes.start("here", App())
    subscriber = await runtimes.start("there", listener)
    await until_known(subscriber, publisher, "there")
    return publisher, subscriber


async def test_an_app_is_called_through_its_own_runtime(runtimes: Runtimes) -> None:
    here, there = App(), App()
    caller = await runtimes.start("here", here)
    await runtimes.start("there", there)

    answer = await caller.call("there")

    assert (answer.status, answer.body) == (200, b"here")
    assert there.requests[0].target == "/where?x=1"
    assert there.requests[0].headers["dapr-caller-app-id"] == "here"


async def test_an_app_whose_runtime_is_down_or_never_was_cannot_be_called(runtimes: Runtimes) -> None:
    caller = await runtimes.start("here", App())
    gone = await runtimes.start("there", App())
    await gone.stop()

    down, unknown = await caller.call("there"), await caller.call("nobody")

    assert (down.status, unknown.status) == (500, 500)
    assert json.loads(down.body)["errorCode"] == "ERR_DIRECT_INVOKE"
    assert b"not running" in down.body
    assert b"no host found" in unknown.body


async def test_a_message_reaches_an_app_of_another_runtime_once(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher, subscriber = await pair(runtimes, listener)

    status = await publisher.publish("hello")
    await until(lambda: bool(listener.requests))
    await until(lambda: publisher.runtime.broker.store.pending() == subscriber.runtime.broker.store.pending() == 0)

    assert status == 204
    assert listener.heard == ["hello"]
    assert listener.requests[0].target == "/news"


async def test_who_has_subscribed_before_a_publish_is_counted_in(runtimes: Runtimes) -> None:
    one, two = App("news"), App("news")
    publisher = await runtimes.start("here", App())
    first = await runtimes.start("one", one)
    await until_known(first, publisher, "one")
    second = await runtimes.start("two", two)
    await second.look()
    await until(lambda: PeerFolder(runtimes.folder, "here").others()["two"].topics == {TOPIC})

    await publisher.publish("to both")
    await until(lambda: bool(one.requests) and bool(two.requests))

    assert (one.heard, two.heard) == (["to both"], ["to both"])


async def test_what_is_published_before_anyone_subscribes_waits_for_the_first(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher = await runtimes.start("here", App())
    await publisher.publish("early")

    subscriber = await runtimes.start("there", listener)
    await until_known(subscriber, publisher, "there")
    await until(lambda: bool(listener.requests))

    assert listener.heard == ["early"]


async def test_a_message_waits_for_a_runtime_that_is_down(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher, subscriber = await pair(runtimes, listener)
    await subscriber.stop()

    await publisher.publish("while away")
    waiting = publisher.runtime.broker.store.pending()
    back = await runtimes.start("there", listener)

    def heard() -> bool:
        publisher.clock.advance(1)
        return bool(listener.requests)

    await until(heard)
    assert waiting == 1
    assert listener.heard == ["while away"]
    await until(lambda: back.runtime.broker.store.pending() == 0)


async def test_a_runtime_that_comes_back_gets_what_waits_as_soon_as_it_is_seen(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher, subscriber = await pair(runtimes, listener)
    await subscriber.stop()
    await publisher.publish("while away")
    for _ in range(100):  # so long that it tries but every 15 seconds
        publisher.clock.advance(1)
        for _ in range(10):
            await asyncio.sleep(0)

    await runtimes.start("there", listener)
    publisher.clock.advance(1)
    await until(lambda: bool(listener.requests))

    assert listener.heard == ["while away"]


async def test_what_was_taken_over_for_one_app_goes_to_no_other(runtimes: Runtimes) -> None:
    one, two, three = App("news"), App("news"), App("news")
    first = await runtimes.start("one", one)
    second = await runtimes.start("two", two)
    await until_known(second, first, "two")
    two.away = True
    await first.publish("before three came")
    await until(lambda: second.runtime.broker.store.pending() == 1 and first.runtime.broker.store.pending() == 0)

    third = await runtimes.start("three", three)
    await until_known(third, second, "three")
    await second.publish("after")
    await until(lambda: bool(three.requests))

    assert three.heard == ["after"]


async def test_a_message_outlives_a_restart_of_its_publisher(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher, subscriber = await pair(runtimes, listener)
    await subscriber.stop()
    await publisher.publish("kept")
    await publisher.stop()

    await runtimes.start("there", listener)
    back = await runtimes.start("here", App())

    def heard() -> bool:
        back.clock.advance(1)  # its clock began again: the message is due when it was published
        return bool(listener.requests)

    await until(heard)

    assert listener.heard == ["kept"]


async def test_a_message_that_was_taken_over_waits_for_its_app_there(runtimes: Runtimes) -> None:
    listener = App("news")
    publisher, subscriber = await pair(runtimes, listener)
    listener.away = True

    await publisher.publish("for later")
    await until(lambda: publisher.runtime.broker.store.pending() == 0)
    taken_over = subscriber.runtime.broker.store.pending()
    await publisher.stop()
    listener.away = False
    subscriber.runtime.broker.app_is_back("there")
    await until(lambda: bool(listener.requests))

    assert taken_over == 1
    assert listener.heard == ["for later"]


async def test_two_apps_that_publish_and_subscribe_to_the_same_topic_hear_each_message_once(runtimes: Runtimes) -> None:
    one, two = App("news"), App("news")
    first = await runtimes.start("one", one)
    second = await runtimes.start("two", two)
    await until_known(second, first, "two")
    await until_known(first, second, "one")

    await first.publish("from one")
    await second.publish("from two")
    await until(lambda: len(one.requests) + len(two.requests) >= 4)
    await until(lambda: first.runtime.broker.store.pending() == second.runtime.broker.store.pending() == 0)

    assert sorted(one.heard) == ["from one", "from two"]
    assert sorted(two.heard) == ["from one", "from two"]


async def test_a_message_for_a_topic_that_is_not_subscribed_to_any_more_is_given_up(runtimes: Runtimes) -> None:
    publisher, subscriber = await pair(runtimes, App("news"))
    await subscriber.stop()
    await runtimes.start("there", App())

    await publisher.publish("too late")

    def nothing_left() -> bool:
        publisher.clock.advance(1)
        return publisher.runtime.broker.store.pending() == 0

    await until(nothing_left)


async def test_the_socket_of_a_run_that_was_killed_is_cleared_away(runtimes: Runtimes, tmp_path: Path) -> None:
    left = tmp_path / "everturn-left" / "runtime.sock"
    left.parent.mkdir()
    left.touch()
    folder = PeerFolder(runtimes.folder, "here")
    folder.own_folder.mkdir()
    folder.announce(left, [])

    await runtimes.start("here", App())

    assert not left.parent.exists()


async def test_a_file_that_cannot_be_read_is_passed_over(runtimes: Runtimes, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "runtime.json").write_text("{", "utf-8")
    caller = await runtimes.start("here", App())

    answer = await caller.call("odd")

    assert answer.status == 500


def test_a_file_that_somebody_left_among_the_runtimes_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / ".DS_Store").write_bytes(b"x")

    others = PeerFolder(tmp_path / "apps", "me").others()

    assert others == {}
    assert caplog.records == []
