"""Turns that wait for a person and let later messages of their session pass."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running
from tests.system.paid_assistant import keys, made
from tests.system.test_approvals import BOOK, OURS, decide, that_waits, waiting


@pytest.fixture(autouse=True)
def fresh() -> None:
    made.clear()
    keys.clear()


@pytest.fixture
async def passing(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> AsyncIterator[System]:
    async with running(tmp_path, endpoint, clock, assistant=OURS, waiting_turns="pass") as started:
        yield started


async def test_later_messages_pass_and_the_turn_goes_to_the_end_once_it_is_decided(passing: System) -> None:
    turn = await waiting(passing)

    later = [await passing.say(f"later {number}") for number in range(2)]
    still = await passing.turn(turn["turn_id"])
    await decide(passing, turn, "approve")
    ended = await passing.ended(turn["turn_id"])

    assert [reply.status_code for reply in later] == [200, 200]
    assert (still["status"], still["approvals"], still["sequence"]) == ("waiting", turn["approvals"], 1)
    assert (ended["reply"]["reply"], ended["sequence"]) == ("It is booked.", 4)
    assert made == {"mail ann": 1, "book PK301": 1}
    expected = ["later 0", "hello", "later 1", "hello", "book PK301", "It is booked."]
    assert await passing.history_of(6) == expected
    await passing.say("after")
    assert [message["content"] for message in passing.questions()[-1]][-7:] == [*expected, "after"]


async def test_who_waited_behind_the_turn_is_answered_while_it_waits(passing: System) -> None:
    release = asyncio.Event()
    passing.endpoint.script_for("book PK301", Held(release, BOOK))
    turn_id = await passing.accept("book PK301")
    await passing.endpoint.asked(1)
    later = await passing.accept("later")
    release.set()
    await passing.endpoint.asked(2)  # before anybody looks

    assert (await passing.ended(later))["status"] == "completed"
    assert (await that_waits(passing, turn_id))["status"] == "waiting"


async def test_without_the_setting_later_messages_wait(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS) as system:
        turn = await waiting(system)
        later = await system.accept("later")

        assert (await system.turn(later))["status"] == "queued"
        await decide(system, turn, "approve")
        assert (await system.ended(later))["sequence"] == 2


async def test_a_turn_that_is_decided_while_another_runs_waits_for_it(passing: System) -> None:
    turn = await waiting(passing)
    release = asyncio.Event()
    passing.endpoint.script_for("later", Held(release, completion("later")))
    before = len(passing.endpoint.requests)
    later = await passing.accept("later")
    await passing.endpoint.asked(before + 1)
    await decide(passing, turn, "approve")

    async def is_queued() -> bool:
        return bool((await passing.turn(turn["turn_id"]))["status"] == "queued")

    await passing.until(is_queued, moving=False)
    calls = len(passing.endpoint.requests)
    release.set()
    ended = await passing.ended(turn["turn_id"])

    assert calls == before + 1
    assert (await passing.turn(later))["status"] == "completed"
    assert ended["reply"]["reply"] == "It is booked."
    assert [step["name"] for step in ended["steps"]] == ["fetch_context", "generate_response", "save_conversation"]
    assert await passing.history_of(4) == ["later", "later", "book PK301", "It is booked."]


async def test_a_turn_that_lets_others_pass_can_be_cancelled_and_paused(passing: System) -> None:
    turn = await waiting(passing)
    paused = await passing.steer(turn["turn_id"], "pause")
    resumed = await passing.steer(turn["turn_id"], "resume")
    cancelled = await passing.steer(turn["turn_id"], "cancel")

    statuses = [answer.json()["status"] for answer in (paused, resumed, cancelled)]
    assert statuses == ["paused", "waiting", "cancelled"]
    assert (await passing.say("later")).json()["reply"] == "hello"
    assert await passing.history_of(2) == ["later", "hello"]


async def test_a_turn_that_lets_others_pass_outlasts_restarts(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    given: dict[str, Any] = {"assistant": OURS, "waiting_turns": "pass"}
    async with running(tmp_path, endpoint, clock, **given) as before:
        turn = await waiting(before)
        later = await before.accept("later")
    async with running(tmp_path, endpoint, clock, **given) as between:
        await between.ended(later)
        await decide(between, turn, "approve")
    async with running(tmp_path, endpoint, clock, **given) as after:
        ended = await after.ended(turn["turn_id"])

        assert ended["reply"]["reply"] == "It is booked."
        assert made == {"mail ann": 1, "book PK301": 1}
        assert await after.history_of(4) == ["later", "hello", "book PK301", "It is booked."]
