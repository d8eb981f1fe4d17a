"""Turns that wait for a person and let later messages of their session pass."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.conftest import PATIENCE_S, System, running
from tests.system.paid_assistant import keys, made
from tests.system.test_approvals import BOOK, decide, that_waits, waiting
from tests.system.test_overlap import accepted


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
    calls, queued = len(passing.endpoint.requests), await passing.turn(turn["turn_id"])
    release.set()
    ended = await passing.ended(turn["turn_id"])

    assert calls == before + 1
    assert (queued["calls"], queued["steps"][0]) == (turn["calls"], turn["steps"][0])
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


async def that_wait(system: System) -> tuple[dict[str, Any], str]:
    """A turn that waits for a decision, and one whose message it has taken up."""
    release = asyncio.Event()
    system.endpoint.script(
        Held(release, tool_calls(("send_mail", '{"to": "ann"}'))), tool_calls(("book", '{"flight": "PK301"}'))
    )
    first = await system.accept("first")
    await system.endpoint.asked(1)
    second = await accepted(system, "and this", "merge")
    release.set()
    return await that_waits(system, first), second


async def test_a_merged_message_comes_back_behind_those_that_passed_with_its_turn(passing: System) -> None:
    turn, second = await that_wait(passing)
    await passing.say("later")

    await decide(passing, turn, "approve")
    ended = [await passing.ended(turn_id) for turn_id in (turn["turn_id"], second)]

    assert [one["sequence"] for one in ended] == [4, 5]
    assert ended[1]["merged_into"] == turn["turn_id"]
    assert await passing.history_of(5) == ["later", "hello", "first", "and this", "hello"]


@pytest.mark.parametrize("setting", ["hold", "pass"])
async def test_a_merged_turn_waits_as_the_turn_that_took_it(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, setting: str
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS, waiting_turns=setting) as system:
        turn, second = await that_wait(system)

        merged = await system.turn(second)
        await decide(system, turn, "approve")

        assert (merged["status"], merged["merged_into"]) == ("waiting", turn["turn_id"])
        assert (await system.ended(second))["status"] == "completed"


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_client_of_a_merged_message_is_let_go_while_a_person_decides(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, is_there: bool
) -> None:
    """Also one that asks again later, as at another replica."""
    body = {"user_id": "ann", "text": "and this", "metadata": {"session_id": "s", "overlap": "merge"}}
    headers, release = {"Idempotency-Key": "k"}, asyncio.Event()
    async with running(tmp_path, endpoint, clock, assistant=OURS, request_wait_s=10 * PATIENCE_S) as system:
        endpoint.script(Held(release, tool_calls(("send_mail", '{"to": "ann"}'))), BOOK)
        first = await system.accept("first")
        await endpoint.asked(1)
        if is_there:
            asking = asyncio.create_task(system.chat.post("/chat/", json=body, headers=headers))
            await system.until(lambda: has_two_turns(system), moving=False)
        else:
            await system.chat.post("/chat/", json=body, headers={**headers, "Prefer": "respond-async"})
        release.set()
        turn = await that_waits(system, first)

        async with asyncio.timeout(PATIENCE_S):  # far below the wait of a request
            answer = await (asking if is_there else system.chat.post("/chat/", json=body, headers=headers))

        assert (answer.status_code, answer.json()["merged_into"]) == (202, turn["turn_id"])


async def has_two_turns(system: System) -> bool:
    return len((await system.chat.get("/turns?user_id=ann")).json()["turns"]) == 2


@pytest.mark.parametrize("setting", ["hold", "pass"])
async def test_a_paused_turn_shows_what_is_to_be_decided(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, setting: str
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS, waiting_turns=setting) as system:
        turn = await waiting(system)

        paused = (await system.steer(turn["turn_id"], "pause")).json()
        decided = (await decide(system, turn, "approve")).json()
        await system.steer(turn["turn_id"], "resume")

        assert (paused["status"], paused["approvals"]) == ("paused", turn["approvals"])
        assert (decided["status"], decided["approvals"]) == ("paused", [])
        assert (await system.ended(turn["turn_id"]))["reply"]["reply"] == "It is booked."
