"""`everturn chat` and `everturn turns`, against a running service."""

import asyncio

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine


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


async def test_a_turn_can_be_shown_step_by_step(machine: Machine, client: Client) -> None:
    await machine.up()
    turn_id = (await client.say("Hi there")).json()["turn_id"]

    shown = await machine.run("turns", "show", turn_id)

    assert await shown.exit_code() == 0
    text = "\n".join(shown.out.all)
    for word in (turn_id, "completed", "fetch_context", "generate_response", "save_conversation", "offline-demo"):
        assert word in text


async def test_a_turn_that_is_not_there_is_told_in_one_line(machine: Machine) -> None:
    await machine.up()

    shown = await machine.run("turns", "show", "no-such-turn")

    assert await shown.exit_code() == 1
    assert len(shown.err.all) == 1
    assert "no-such-turn" in shown.err.all[0]
