"""`everturn chat` and `everturn turns`, against a running service."""

import asyncio
import json
import re
import shutil
import signal
from typing import Any

import pytest

from everturn.testing.model_answers import Held, completion, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import SOURCE, Client, Machine
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider


async def test_one_message_prints_its_reply_alone(machine: Machine) -> None:
    await machine.up()

    chat = await machine.run("chat", "--user", "junaid", "-m", "My name is Junaid.")

    assert await chat.exit_code() == 0
    assert "Junaid" in "\n".join(chat.out.all)
    assert any(line.startswith("session: ") for line in chat.err.all)


async def test_a_conversation_goes_on_until_the_input_ends(machine: Machine) -> None:
    await machine.up()

    chat = await machine.run("chat", "--user", "junaid", text="I live in Karachi.\n\nWhere do I live?\n")

    assert await chat.exit_code() == 0
    assert "Karachi" in chat.out.all[-1]


async def test_a_session_can_be_taken_up_again(machine: Machine, client: Client) -> None:
    await machine.up()
    await (await machine.run("chat", "--user", "junaid", "--session", "s7", "-m", "Hi there")).exit_code()

    await (await machine.run("chat", "--user", "junaid", "--session", "s7", "-m", "Hi again")).exit_code()

    async def has_both() -> bool:
        return len(await client.history("s7")) == 4

    await client.until(has_both)


async def test_a_refused_message_is_told_in_the_services_own_words(machine: Machine) -> None:
    await machine.up()

    chat = await machine.run("chat", "--user", "junaid", "-m", "   ")

    assert await chat.exit_code() == 1
    assert "Message text cannot be empty" in chat.err.all[-1]


async def test_a_reply_comes_although_the_service_is_killed_meanwhile(machine: Machine, client: Client) -> None:
    async with ModelEndpoint(Held(asyncio.Event(), completion("never")), otherwise=completion("after all")) as endpoint:
        model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        first = await machine.up(**model)
        chat = await machine.run("chat", "--user", "junaid", "-m", "Hi there")
        await endpoint.asked(1)

        await first.kill()
        await machine.up(**model)

        assert await chat.exit_code() == 0
        assert chat.out.all == ["after all"]


@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGTERM])
async def test_a_client_that_is_told_to_end_ends_without_a_failure(machine: Machine, ends_by: signal.Signals) -> None:
    release = asyncio.Event()
    async with ModelEndpoint(Held(release, completion("too late"))) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        chat = await machine.run("chat", "--user", "junaid", "-m", "Hi there")
        await endpoint.asked(1)

        code = await chat.stop(ends_by)
        release.set()

        assert code == 0
        running, going_on = chat.err.all
        assert re.fullmatch(r"turn (\S+) goes on: everturn turns show \1", running)
        assert re.fullmatch(r"to go on: everturn chat --user junaid --session \S+", going_on)


async def test_each_message_gives_a_line_of_json(machine: Machine) -> None:
    async with ModelEndpoint(completion("one"), completion("two\nlines"), status(401)) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")

        chat = await machine.run("chat", "--user", "junaid", "--json", text="first\nsecond\nthird\nfourth\n")

        assert await chat.exit_code() == 1
    said = [json.loads(line) for line in chat.out.all]
    assert [each.get("reply") for each in said] == ["one", "two\nlines", None]
    assert [each["status"] for each in said] == ["completed", "completed", "failed"]
    assert chat.err.all[-1].startswith(f"everturn: turn {said[-1]['turn_id']} failed: ")


async def test_a_turn_can_be_shown_step_by_step(machine: Machine, client: Client) -> None:
    await machine.up()
    turn_id = (await client.say("Hi there")).json()["turn_id"]

    shown = await machine.run("turns", "show", turn_id)

    assert await shown.exit_code() == 0
    text = "\n".join(shown.out.all)
    for word in (turn_id, "completed", "fetch_context", "generate_response", "save_conversation", "offline-demo"):
        assert word in text


async def test_a_call_that_a_turn_asks_for_can_be_rejected_and_the_reply_comes(
    machine: Machine, client: Client
) -> None:
    shutil.copy(SOURCE.parent / "tests/conformance/booking.py", machine.folder / "booking.py")
    async with ModelEndpoint(tool_calls(("book", '{"flight": "PK301"}')), completion("As you like.")) as endpoint:
        model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        await machine.up(EVERTURN_ASSISTANT="booking:agent", **model)
        turn_id = (await client.say("Book PK301")).json()["turn_id"]
        (asked,) = (await that_is(client, turn_id, "waiting"))["approvals"]

        shown = await machine.run("turns", "show", turn_id)
        assert await shown.exit_code() == 0
        rejected = await machine.run("turns", "reject", turn_id, asked["call_id"], "--reason", "too dear")
        turn = await that_is(client, turn_id, "completed")

        assert f"    everturn turns approve {turn_id} {asked['call_id']}   (or: reject, --reason)" in shown.out.all
        assert await rejected.exit_code() == 0
        assert turn["reply"]["reply"] == "As you like."
        assert "too dear" in str(endpoint.requests[1].body["messages"][-1])


async def that_is(client: Client, turn_id: str, wanted: str) -> dict[str, Any]:
    """The turn once it is so."""
    async with asyncio.timeout(30):
        while (turn := await client.turn(turn_id))["status"] != wanted:  # noqa: ASYNC110 - nothing else to wait for
            await asyncio.sleep(0)
    return turn


async def test_a_turn_that_is_not_there_is_told_in_one_line(machine: Machine) -> None:
    await machine.up()

    shown = await machine.run("turns", "show", "no-such-turn")

    assert await shown.exit_code() == 1
    assert len(shown.err.all) == 1
    assert "no-such-turn" in shown.err.all[0]


async def test_a_turn_is_held_let_go_ended_and_tried_again_from_the_terminal(machine: Machine, client: Client) -> None:
    never = asyncio.Event()
    held = [Held(never, completion("never given")) for _ in range(2)]
    async with ModelEndpoint(status(401), *held, otherwise=completion("hello")) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        failed = (await client.say("Hi there")).json()["turn_id"]

        assert await steer(machine, "rerun", failed) == (0, f"turn {failed}: running")
        await endpoint.asked(2)
        assert await steer(machine, "pause", failed) == (0, f"turn {failed}: paused")
        assert await steer(machine, "resume", failed) == (0, f"turn {failed}: running")
        assert await steer(machine, "cancel", failed) == (0, f"turn {failed}: cancelled")
        code, refusal = await steer(machine, "pause", failed)

    assert code == 1
    assert refusal.startswith("everturn: the chat service answered 409: ")


async def test_turns_are_listed_part_by_part_and_by_their_status(machine: Machine, client: Client) -> None:
    async with ModelEndpoint(status(401), otherwise=completion("hello")) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        failed, done = [(await client.say("Hi there", session=session)).json()["turn_id"] for session in ("s1", "s2")]

    first = await lines_of(machine, "list", "--user", "junaid", "--limit", "1")
    cursor = machine.started[-1].err.all[0].partition("--cursor ")[2]

    assert [line.split()[:2] for line in first] == [[done, "completed"]]
    rest = await lines_of(machine, "list", "--user", "junaid", "--limit", "1", "--cursor", cursor)
    assert [line.split()[:2] for line in rest] == [[failed, "failed"]]
    assert [line.split()[0] for line in await lines_of(machine, "list", "--user", "junaid", "--status", "failed")] == [
        failed
    ]
    assert await lines_of(machine, "list", "--user", "somebody else") == []
    assert machine.started[-1].err.all == ["no turns"]


async def lines_of(machine: Machine, *arguments: str) -> list[str]:
    done = await machine.run("turns", *arguments)
    assert await done.exit_code() == 0, done.err.all
    return [line for line in done.out.all if line.strip()]


async def test_a_user_signs_in_by_a_token_and_steers_only_their_own_turns(machine: Machine) -> None:
    provider = IdentityProvider()
    (machine.folder / "keys.json").write_bytes(provider.jwks())
    await machine.up(
        EVERTURN_AUTH="jwt",
        EVERTURN_JWT_JWKS=str(machine.folder / "keys.json"),
        EVERTURN_JWT_ISSUER=ISSUER,
        EVERTURN_JWT_AUDIENCE=AUDIENCE,
        EVERTURN_OPERATOR_TOKEN="operator-secret",
    )
    anns, bobs = ({"EVERTURN_TOKEN": provider.token(user)} for user in ("ann", "bob"))

    unsigned = await machine.run("chat", "--user", "ann", "-m", "Hi there")
    chat = await machine.run("chat", "-m", "My name is Ann.", **anns)

    assert await unsigned.exit_code() == 1
    assert "401" in unsigned.err.all[-1]
    assert await chat.exit_code() == 0
    turn_id = next(line for line in chat.err.all if line.startswith("turn: ")).removeprefix("turn: ")
    assert await steer(machine, "show", turn_id, **anns) == (0, f"turn {turn_id}: completed")
    assert await steer(machine, "show", turn_id, EVERTURN_TOKEN="operator-secret") == (0, f"turn {turn_id}: completed")
    code, refusal = await steer(machine, "cancel", turn_id, **bobs)
    assert (code, "404" in refusal) == (1, True)


async def steer(machine: Machine, verb: str, turn_id: str, **settings: str) -> tuple[int, str]:
    """The exit code, and the first line that was printed."""
    done = await machine.run("turns", verb, turn_id, **settings)
    code = await done.exit_code()
    return code, (done.out.all or done.err.all)[0]
