"""`everturn chat` as a person at a terminal sees it."""

import asyncio
import re
import shutil

from everturn.testing.model_answers import completion, spoken, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import SOURCE, Client, Machine
from tests.e2e.terminal import Terminal, in_terminal

PROMPT = "you>"
LONG = " ".join(f"word{number}" for number in range(1, 60))


async def ready(terminal: Terminal) -> None:
    """The terminal waits for the first message."""
    await terminal.until(lambda shown: shown.endswith(PROMPT))


async def say(terminal: Terminal, text: str) -> None:
    """Type a line; return when the terminal waits for the next one."""
    before = terminal.text.count(PROMPT)
    terminal.type(f"{text}\n")
    await terminal.until(lambda shown: shown.endswith(PROMPT) and shown.count(PROMPT) > before)


async def test_a_reply_is_labelled_and_wrapped_at_words(machine: Machine) -> None:
    async with ModelEndpoint(completion(LONG)) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            await say(terminal, "Hi there")

            assert f"you> Hi there everturn> {LONG} you>" in terminal.sentence
            colour = {terminal.screen.buffer[row][0].fg for row in range(5)}
            assert "green" in colour


async def test_words_stay_and_the_answer_goes_on_although_the_service_is_killed_in_it(machine: Machine) -> None:
    slow = await machine.up("--slow-demo")
    async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
        await ready(terminal)
        terminal.type("What can you do?\n")
        await terminal.shows("I am an offline demo")
        assert "no language model" not in terminal.sentence

        await slow.kill()
        await terminal.shows("the service went away")
        assert "I am an offline demo" in terminal.sentence
        await machine.up()
        await terminal.until(lambda shown: shown.endswith(PROMPT))

        assert terminal.sentence.count("I am an offline demo: a few rules, no language model.") == 1
        assert terminal.sentence.count("I am an") == 1
        assert "went away" not in terminal.sentence


async def test_an_answer_that_begins_otherwise_after_a_crash_is_set_apart(machine: Machine) -> None:
    before, after = LONG.split("word40")
    async with ModelEndpoint(
        spoken(before, asyncio.Event(), f"word40{after}"), completion("Something else.")
    ) as endpoint:
        model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        running = await machine.up(**model)
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            terminal.type("Hi there\n")
            await terminal.shows("word20")

            await running.kill()
            await machine.up(**model)
            await ready(terminal)

            assert "that answer broke off; here is the next everturn> Something else. you>" in terminal.sentence


async def test_a_wait_shows_the_step_the_attempt_and_the_time_of_the_next_try(machine: Machine) -> None:
    busy = status(503, retry_after="300")
    async with ModelEndpoint(otherwise=busy) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            terminal.type("Hi there\n")

            await terminal.shows("generate_response: attempt 1 failed")
            assert re.search(r"next try at \d\d:\d\d:\d\d, in \d+ s", terminal.sentence)

            terminal.type("\x03")
            assert await terminal.exit_code() == 0
            assert re.search(r"turn \S+ goes on: everturn turns show \S+", terminal.sentence)
            assert "to go on: everturn chat --user junaid --session" in terminal.sentence
            assert "Traceback" not in terminal.text


async def test_a_call_is_approved_or_rejected_where_it_is_asked_for(machine: Machine) -> None:
    shutil.copy(SOURCE.parent / "tests/conformance/booking.py", machine.folder / "booking.py")
    asked = tool_calls(("book", '{"flight": "PK301"}'))
    async with ModelEndpoint(asked, completion("Booked."), asked, completion("As you like.")) as endpoint:
        await machine.up(
            EVERTURN_ASSISTANT="booking:agent",
            EVERTURN_MODEL_BASE_URL=endpoint.base_url,
            EVERTURN_MODEL_NAME="scripted",
        )
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            terminal.type("Book PK301\n")
            await terminal.shows('approve? book {"flight": "PK301"} (y)es or (n)o>')
            terminal.type("y\n")
            await terminal.shows("everturn> Booked. you>")

            terminal.type("Once more\n")
            await terminal.shows("(y)es or (n)o>", times=2)
            terminal.type("n\n")
            await terminal.shows("why not (the model reads it)>")
            terminal.type("too dear\n")
            await terminal.shows("everturn> As you like. you>")

        results = [request.body["messages"][-1]["content"] for request in endpoint.requests]
        assert results[1] == "booked PK301"
        assert "too dear" in results[3]


async def test_a_failed_turn_is_run_again_by_retry_and_turn_shows_its_steps(machine: Machine) -> None:
    async with ModelEndpoint(status(401), otherwise=completion("After all.")) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            await say(terminal, "Hi there")
            assert re.search(r"failed: .* /retry tries it again you>$", terminal.sentence)

            await say(terminal, "/retry")
            assert terminal.sentence.endswith("everturn> After all. you>")
            await say(terminal, "/turn")
            assert "save_conversation completed 1 attempt" in terminal.sentence


async def test_a_message_that_nobody_took_is_sent_again_by_retry(machine: Machine) -> None:
    async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
        await ready(terminal)
        await say(terminal, "My name is Junaid")
        assert "no chat service answers" in terminal.sentence
        await machine.up()

        await say(terminal, "/retry")

        assert "Junaid" in terminal.sentence.rpartition("everturn> ")[2]


async def test_conversations_are_listed_and_taken_up(machine: Machine, client: Client) -> None:
    await machine.up()
    await client.say("I live in Karachi", session="monday")
    async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
        await ready(terminal)
        await say(terminal, "/sessions")
        assert "monday 1 turn, " in terminal.sentence
        await say(terminal, "/sessions monday")
        await say(terminal, "Hi there")

        terminal.type("/quit\n")

        assert await terminal.exit_code() == 0
        assert "to go on: everturn chat --user junaid --session monday" in terminal.sentence
    turns = (await client.http.get(f"{machine.chat_url}/sessions?user_id=junaid")).json()["sessions"]
    assert [(each["session_id"], each["turns"]) for each in turns] == [("monday", 2)]


async def test_commands_are_helped_with_and_a_slash_can_begin_a_message(machine: Machine, client: Client) -> None:
    await machine.up()
    async with in_terminal(machine, "chat", "--user", "junaid", "--session", "s1") as terminal:
        await ready(terminal)
        await say(terminal, "/fly")
        assert terminal.sentence.endswith("no command '/fly': /help lists them you>")
        await say(terminal, "/help")
        assert "/sessions [ID]" in terminal.sentence
        await say(terminal, "//fly is a command")

        async def is_there() -> bool:
            return [entry["content"] for entry in await client.history("s1")][:1] == ["/fly is a command"]

        await client.until(is_there)


async def test_characters_that_a_terminal_obeys_are_not_sent_to_it(machine: Machine) -> None:
    async with ModelEndpoint(completion("a\x1b[2Jb [bold]c[/bold]")) as endpoint:
        await machine.up(EVERTURN_MODEL_BASE_URL=endpoint.base_url, EVERTURN_MODEL_NAME="scripted")
        async with in_terminal(machine, "chat", "--user", "junaid") as terminal:
            await ready(terminal)
            terminal.type("Hi there\n")
            await terminal.shows("everturn> a\N{REPLACEMENT CHARACTER}[2Jb [bold]c[/bold] you>")
