"""A turn from end to end: the reply, the history, what is shown of it, and what goes wrong on the way."""

import asyncio

import pytest

from everturn.testing.model_answers import Held, completion, status
from tests.system.conftest import ASYNC, System


async def test_a_message_gets_its_reply_and_both_are_in_the_history(system: System) -> None:
    response = await system.say("Hi there")

    assert response.status_code == 200
    reply = response.json()
    assert reply["reply"] == "hello"
    assert reply["status"] == "completed"
    assert reply["model"] == "scripted"
    assert reply["degraded"] == []
    assert reply["metadata"]["session_id"] == "s"
    assert await system.history_of(2) == ["Hi there", "hello"]


async def test_a_message_without_a_session_gets_a_new_one(system: System) -> None:
    first = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"})
    second = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi", "metadata": None})

    sessions = {response.json()["metadata"]["session_id"] for response in (first, second)}
    assert len(sessions) == 2


async def test_a_finished_turn_shows_its_steps_and_its_reply(system: System) -> None:
    reply = (await system.say("Hi there")).json()

    turn = await system.turn(reply["turn_id"])

    assert [(step["name"], step["status"], step["attempts"]) for step in turn["steps"]] == [
        ("fetch_context", "completed", 1),
        ("generate_response", "completed", 1),
        ("save_conversation", "completed", 1),
    ]
    assert turn["reply"] == reply
    assert turn["status"] == "completed"
    assert turn["sequence"] == 1
    assert "error" not in turn


def steps_logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int]]:
    events = ("step_completed", "step_attempt_failed")
    return [
        (record.msg, vars(record)["step"], vars(record)["attempt"]) for record in caplog.records if record.msg in events
    ]


async def _is_logged(caplog: pytest.LogCaptureFixture, step: str) -> bool:
    return ("step_completed", step, 1) in steps_logged(caplog)


async def test_each_completed_step_is_one_line_of_the_log(system: System, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "everturn")
    system.endpoint.script(status(500), completion("hello"))
    turn_id = await system.accept("Hi there")

    await system.ended(turn_id)
    await system.until(lambda: _is_logged(caplog, "save_conversation"))  # the step ends after the turn

    assert steps_logged(caplog) == [
        ("step_completed", "fetch_context", 1),
        ("step_attempt_failed", "generate_response", 1),
        ("step_completed", "generate_response", 2),
        ("step_completed", "save_conversation", 1),
    ]
    assert {vars(record)["turn_id"] for record in caplog.records if record.msg == "step_completed"} == {turn_id}


async def test_respond_async_is_answered_at_once_with_a_place_to_look(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("later")))

    response = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"}, headers=ASYNC)

    assert response.status_code == 202
    turn_id = response.json()["turn_id"]
    assert response.headers["location"] == f"/turns/{turn_id}"
    assert response.json()["status"] in ("queued", "running")
    release.set()
    assert (await system.ended(turn_id))["reply"]["reply"] == "later"


async def test_a_reply_sees_the_turn_before_it_even_if_its_event_is_late(system: System) -> None:
    system.faults.set_away("broker", away=True)
    await system.ended(await system.accept("My name is Ann"))

    await system.ended(await system.accept("What is my name?"))

    assert await system.history() == []
    contents = [message["content"] for message in system.questions()[1]]
    assert contents[-3:] == ["My name is Ann", "hello", "What is my name?"]


async def test_a_transient_fault_of_the_model_is_retried_and_shown(system: System) -> None:
    system.endpoint.script(status(500), status(429, retry_after="3"))

    turn = await system.ended(await system.accept("Hi"))

    assert turn["status"] == "completed"
    generate = turn["steps"][1]
    assert (generate["status"], generate["attempts"]) == ("completed", 3)
    assert generate["error"]["kind"] == "http_429"


async def test_retry_after_is_waited_for(system: System) -> None:
    system.endpoint.script(status(429, retry_after="300"))
    turn_id = await system.accept("Hi")
    await system.endpoint.asked(1)

    async def is_retrying() -> bool:
        return bool((await system.turn(turn_id))["steps"][-1]["status"] == "retrying")

    await system.until(is_retrying, moving=False)
    started = system.clock.now()
    await system.ended(turn_id)

    assert system.clock.now() - started >= 300


async def test_a_terminal_fault_fails_the_turn_at_once_and_says_which_step(system: System) -> None:
    system.endpoint.script(status(401))

    response = await system.say("Hi")

    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["step"] == "generate_response"
    turn = await system.turn(problem["turn_id"])
    assert turn["status"] == "failed"
    assert turn["steps"][1]["attempts"] == 1
    assert turn["steps"][-1]["name"] == "handle_error"
    assert turn["error"]["kind"]


async def test_a_failed_turn_leaves_no_message_in_the_history(system: System) -> None:
    system.endpoint.script(status(401))
    await system.say("lost")

    await system.say("kept")

    assert await system.history_of(2) == ["kept", "hello"]
    assert "lost" not in [message["content"] for message in system.questions()[-1]]


async def test_without_the_memory_service_the_turn_goes_on_and_says_so(system: System) -> None:
    system.faults.set_away("memory", away=True)

    turn = await system.ended(await system.accept("Hi"))

    assert turn["status"] == "completed"
    assert turn["reply"]["degraded"] == ["memory", "history"]
    fetch = turn["steps"][0]
    assert (fetch["name"], fetch["status"], fetch["attempts"]) == ("fetch_context", "failed", 6)


async def test_a_turn_waits_for_the_memory_service_to_come_back(system: System) -> None:
    system.faults.set_away("memory", away=True)
    turn_id = await system.accept("Hi")

    async def has_retried() -> bool:
        steps = (await system.turn(turn_id))["steps"]
        return bool(steps) and steps[0]["attempts"] >= 2

    await system.until(has_retried)
    system.faults.set_away("memory", away=False)
    turn = await system.ended(turn_id)

    assert turn["status"] == "completed"
    assert turn["reply"]["degraded"] == []
    assert turn["steps"][0]["status"] == "completed"
    assert await system.history_of(2) == ["Hi", "hello"]


async def test_without_the_broker_the_reply_is_given_and_the_event_is_sent_later(system: System) -> None:
    system.faults.set_away("broker", away=True)

    turn = await system.ended(await system.accept("Hi"))
    next_turn = await system.ended(await system.accept("Again"))

    assert turn["status"] == next_turn["status"] == "completed"
    assert turn["reply"]["reply"] == "hello"
    assert (turn["steps"][2]["status"], turn["steps"][2]["attempts"]) == ("completed", 1)
    assert [message["content"] for message in system.questions()[1]][-3:] == ["Hi", "hello", "Again"]
    assert await system.history() == []
    system.faults.set_away("broker", away=False)
    assert await system.history_of(4) == ["Hi", "hello", "Again", "hello"]
