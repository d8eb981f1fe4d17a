"""The data folder of the release before, opened by the code of today: nothing is lost, what was begun finishes."""

import json
import lzma
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine

RELEASE = Path(__file__).parent.parent / "fixtures" / "release_76f33fb"
CONTENTS: dict[str, Any] = json.loads((RELEASE / "contents.json").read_text("utf-8"))


def turn_id(name: str) -> str:
    return str(CONTENTS["turns"][name]["turn_id"])


@pytest.fixture
async def endpoint(machine: Machine) -> AsyncIterator[ModelEndpoint]:
    """A model for the machine, whose data folder is a copy of the release's."""
    folder = machine.folder / ".everturn"
    folder.mkdir()
    (folder / "everturn.db").write_bytes(lzma.decompress((RELEASE / "everturn.db.xz").read_bytes()))
    async with ModelEndpoint(otherwise=completion(CONTENTS["summary"])) as started:
        machine.settings |= {
            "EVERTURN_MODEL_BASE_URL": started.base_url,
            "EVERTURN_MODEL_NAME": "scripted",
            "EVERTURN_KEEP_TURNS_DAYS": "36500",
            "EVERTURN_KEEP_WORKFLOWS_HOURS": "876000",
        }
        yield started


async def said(client: Client, session: str) -> list[str]:
    return [entry["content"] for entry in await client.history(session)]


async def ended(client: Client, name: str) -> dict[str, Any]:
    async def has_ended() -> bool:
        return (await client.turn(turn_id(name)))["status"] in ("completed", "failed", "cancelled")

    await client.until(has_ended)
    return await client.turn(turn_id(name))


async def stored(client: Client, session: str, *entries: str) -> None:
    async def is_stored() -> bool:
        return await said(client, session) == list(entries)

    await client.until(is_stored)


async def test_conversations_and_memory_of_the_release_before_are_read(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    await machine.up()

    memory = (await client.http.get(f"{machine.memory_url}/memories/ann")).json()
    talk, long = await said(client, "talk"), await said(client, "long")

    assert memory == {"name": "Ann", "preferred_style": "formal", "user_summary": CONTENTS["summary"]}
    numbers = [f"{number:02}" for number in range(1, CONTENTS["talk"] + 1)]
    assert talk == [line for n in numbers for line in (f"Message {n}", f"Reply to: Message {n}")]
    assert long == [line for n in range(1, CONTENTS["long"] + 1) for line in (f"Message {n}", f"Reply {n}")]


async def test_a_conversation_of_the_release_before_goes_on_with_its_history_and_memory(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script_for("And now?", completion("All is well."))
    await machine.up()

    reply = await client.say("And now?", user="ann", session="talk")

    assert reply.status_code == 200, reply.text
    assert reply.json()["degraded"] == []
    (request,) = endpoint.requests_about("And now?")
    messages = [message["content"] for message in request.body["messages"]]
    assert "Ann lives in Lahore." in messages[0]
    assert messages[-3:] == ["Message 18", "Reply to: Message 18", "And now?"]
    assert (await client.turn(reply.json()["turn_id"]))["sequence"] == CONTENTS["talk"] + 1
    await client.until(lambda: has_length(client, "talk", 2 * CONTENTS["talk"] + 2))
    assert (await said(client, "talk"))[-2:] == ["And now?", "All is well."]


async def has_length(client: Client, session: str, count: int) -> bool:
    return len(await client.history(session)) == count


async def test_a_key_of_the_release_before_gives_the_same_reply_or_failure(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    await machine.up()

    reply = await client.say("Message with a key", user="ann", session="keyed", headers={"Idempotency-Key": "key-1"})
    other = await client.say("Another message", user="ann", session="keyed", headers={"Idempotency-Key": "key-1"})
    failure = await client.say("Message that fails", user="ann", session="failed", headers={"Idempotency-Key": "key-2"})

    assert reply.status_code == 200, reply.text
    assert reply.json() == CONTENTS["turns"]["keyed"]["reply"]
    assert other.status_code == 422
    assert failure.status_code == 502
    assert failure.json()["turn_id"] == turn_id("failed")
    assert endpoint.requests_about("key") == endpoint.requests_about("fails") == []


async def test_turns_that_ended_in_the_release_before_are_shown_as_they_were(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    await machine.up()

    shown = {name: await client.turn(turn_id(name)) for name in ("keyed", "failed", "cancelled", "undelivered")}

    for name, turn in shown.items():
        before = CONTENTS["turns"][name]
        for field in ("turn_id", "user_id", "session_id", "sequence", "status", "created_at", "finished_at", "reply"):
            assert turn.get(field) == before.get(field), f"{field} of {name}"
        assert [step["name"] for step in turn["steps"]] == [step["name"] for step in before["steps"]]
    assert shown["failed"]["error"] == CONTENTS["turns"]["failed"]["error"]


async def test_a_turn_in_flight_in_the_release_before_finishes(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script_for("Message in flight", completion("Landed."))
    await machine.up()

    turn = await ended(client, "in_flight")

    assert turn["status"] == "completed"
    assert turn["reply"]["reply"] == "Landed."
    assert len(endpoint.requests_about("Message in flight")) == 1
    await stored(client, "flight", "Message in flight", "Landed.")


async def test_a_paused_turn_of_the_release_before_keeps_its_reply_and_lets_the_queued_one_run(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script_for("Message that is queued", completion("At last."))
    await machine.up()
    before = await client.turn(turn_id("paused"))

    resumed = await client.http.post(f"{machine.chat_url}/turns/{turn_id('paused')}/resume")
    paused, queued = await ended(client, "paused"), await ended(client, "queued")

    assert before["status"] == "paused"
    assert resumed.status_code == 200, resumed.text
    assert paused["reply"]["reply"] == "Reply to: Message that is paused"
    assert endpoint.requests_about("Message that is paused") == [], "a reply was paid for twice"
    assert queued["status"] == "completed"
    (request,) = endpoint.requests_about("Message that is queued")
    assert request.body["messages"][-2]["content"] == "Reply to: Message that is paused"
    await stored(
        client,
        "paused",
        "Message that is paused",
        "Reply to: Message that is paused",
        "Message that is queued",
        "At last.",
    )


async def test_events_that_the_release_before_could_not_deliver_arrive(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    await machine.up()

    await stored(client, "undelivered", "Message undelivered", "Reply to: Message undelivered")
    await stored(client, "deferred", "Message deferred", "Reply to: Message deferred")


async def test_a_failed_turn_of_the_release_before_can_run_again(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script_for("Message that fails", completion("Now it works."))
    await machine.up()

    rerun = await client.http.post(f"{machine.chat_url}/turns/{turn_id('failed')}/rerun")
    turn = await ended(client, "failed")

    assert rerun.status_code == 202, rerun.text
    assert turn["status"] == "completed"
    assert turn["reply"]["reply"] == "Now it works."
    await stored(client, "failed", "Message that fails", "Now it works.")


async def test_events_that_the_release_before_stored_are_known_again(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    machine.settings["APP_API_TOKEN"] = client.http.headers["dapr-api-token"] = "of-the-sidecar"
    await machine.up()
    names: dict[str, dict[str, object]] = {
        "old-1": {},
        "long-1": {"turn_id": "long-1", "sequence": 1},
        "long-290": {"turn_id": "long-290", "sequence": 290},
    }

    for event_id, more in names.items():
        session, number = event_id.split("-")
        update = {
            "event_type": "ConversationUpdated",
            "user_id": "bob",
            "session_id": session,
            "user_message": f"Message {number}",
            "assistant_reply": f"Reply {number}",
            **more,
        }
        event = {"specversion": "1.0", "id": event_id, "source": "x", "type": "y", "data": update}
        answer = await client.http.post(f"{machine.memory_url}/conversations", json=event)
        assert answer.json() == {"status": "SUCCESS"}

    assert await said(client, "old") == ["Message 1", "Reply 1", "Message 2", "Reply 2"]
    assert len(await client.history("long")) == 2 * CONTENTS["long"]
