"""A turn that was recorded by the running system, run again offline against the assistant of another day."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.tool_context import ToolContext

from everturn.chat.assistant.agent import Assistant
from everturn.chat.assistant.tools import tool
from everturn.chat.replay import Replay, replay
from everturn.contracts.recording import Recording
from everturn.models.offline.model import OfflineChatModel
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running
from tests.system.paid_assistant import made
from tests.system.test_approvals import decide, that_waits

HERE = "tests.system.test_replay:recorded"


@tool()
async def send(ctx: ToolContext[Any], to: str) -> str:
    """Send a mail."""
    made[f"send {to}"] += 1
    return f"sent to {to}"


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay an amount."""
    made[f"pay {amount}"] += 1
    return f"paid {amount}"


def _greeting(context: Any, _agent: Any) -> str:
    return f"Be brief.\nThe user is {context.context.memory.name or 'new'}."


def an_agent(instructions: Any = _greeting, tools: Any = (send, pay), other: str = "Help the front.") -> Agent[Any]:
    helper = Agent[Any](name="helper", instructions=other, tools=list(tools))
    return Agent[Any](name="front", instructions=instructions, tools=list(tools), handoffs=[helper])


def a_forecaster(*command: str) -> Agent[Any]:
    server = MCPServerStdio({"command": command[0], "args": list(command[1:])}, client_session_timeout_seconds=30)
    return Agent[Any](name="forecaster", instructions="Say the weather.", mcp_servers=[server])


recorded = an_agent()
forecaster = a_forecaster(sys.executable, "-m", "tests.system.weather_server")


@pytest.fixture(autouse=True)
def fresh() -> None:
    made.clear()


@pytest.fixture
async def ours(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> Any:
    async with running(tmp_path, endpoint, clock, assistant=HERE) as started:
        yield started


async def recording_of(system: System, turn_id: str) -> Recording:
    """Through JSON, as a file has it."""
    response = await system.chat.get(f"/turns/{turn_id}/recording")
    assert response.status_code == 200, response.text
    return Recording.model_validate_json(response.content)


async def replayed(recording: Recording, agent: Agent[Any] | None = None, tokens: int = 8_000) -> Replay:
    """With the agent that it was recorded with, or another; no call may be made."""
    made.clear()
    found = await replay(recording, Assistant(OfflineChatModel(0), agent=agent or an_agent()), tokens)
    assert not made
    return found


async def long_turn(system: System) -> Recording:
    """Parallel tools, a handoff and another tool; the second turn of its session, whose first is still on its way."""
    system.endpoint.script_for("mail both", tool_calls(("send", '{"to": "ann"}'), ("send", '{"to": "bob"}')))
    system.endpoint.script_for("sent to bob", tool_calls(("transfer_to_helper", "{}")))
    system.endpoint.script_for("helper", status(503), tool_calls(("send", '{"to": "cy"}')))
    system.endpoint.script_for("sent to cy", completion("all sent"))
    await system.say("first")
    turn = await system.ended(await system.accept("mail both"))
    assert turn["reply"]["reply"] == "all sent"
    return await recording_of(system, turn["turn_id"])


def kinds(found: Replay) -> list[tuple[str, str]]:
    return [(departure.kind, departure.agent) for departure in found.departures]


def said(found: Replay) -> str:
    return "\n".join(line for departure in found.departures for line in departure.lines)


async def test_the_same_assistant_comes_to_the_same_reply(ours: System) -> None:
    found = await replayed(await long_turn(ours))

    assert (found.departures, found.ending) == ([], "reply")
    assert (found.answered, found.recorded) == (7, 7)


async def test_a_plain_turn_is_replayed_from_its_reply_alone(system: System) -> None:
    turn = await system.ended(await system.accept("Hi"))
    recording = await recording_of(system, turn["turn_id"])

    found = await replay(recording, Assistant(OfflineChatModel(0)), 8_000)

    assert (found.departures, found.ending, found.answered) == ([], "reply", 1)


async def test_changed_instructions_are_shown_as_a_diff_and_the_run_goes_on(ours: System) -> None:
    recording = await long_turn(ours)

    rendered = await replayed(recording, an_agent(instructions="Be polite.\nThe user is ann."))
    plain = await replayed(recording, an_agent(other="Help the front well."))

    assert (kinds(rendered), rendered.ending) == ([("instructions", "front")], "reply")
    assert "-Be brief.\n+Be polite.\n The user is ann." in said(rendered)
    assert (kinds(plain), plain.answered) == ([("instructions", "helper")], 7)
    assert "-Help the front.\n+Help the front well." in said(plain)


async def test_tools_that_are_new_gone_or_changed_are_named(ours: System) -> None:
    @tool()
    async def look(word: str) -> str:
        """Look a word up."""
        return word

    @tool()
    async def pay(amount: float) -> str:
        """Pay an amount."""
        return str(amount)

    recording = await long_turn(ours)

    found = await replayed(recording, an_agent(tools=(send, pay, look)))
    gone = await replayed(recording, an_agent(tools=(send,)))

    assert kinds(found) == [("tools", "front"), ("tools", "helper")]
    assert "tool look is new" in said(found)
    assert '-        "type": "integer"\n+        "type": "number"' in said(found)
    assert said(gone).splitlines() == ["tool pay is gone", "tool pay is gone"]


async def test_a_tool_that_was_called_and_is_gone_departs_in_what_the_model_reads_next(ours: System) -> None:
    found = await replayed(await long_turn(ours), an_agent(tools=(pay,)))

    assert ("input", "front") in kinds(found)
    assert "item 6 of the input is not the recorded one: it is a function_call_output" in said(found)
    assert found.ending == "departure"


async def test_a_shorter_window_departs_in_the_first_item_of_the_input(ours: System) -> None:
    found = await replayed(await long_turn(ours), tokens=1)

    assert kinds(found) == [("input", "front")]
    assert said(found).startswith("item 1 of the input is not the recorded one: it is a message of the user (3 items")
    assert found.answered == 0


async def test_a_call_that_the_recording_lacks_is_named_and_not_made(ours: System) -> None:
    recording = await long_turn(ours)
    recording.calls = [call for call in recording.calls if call.get("answer") != "sent to bob"]

    found = await replayed(recording)

    assert kinds(found) == [("call", "")]
    assert said(found) == 'would call the tool send with {"to": "bob"}, which the recording does not have'


async def test_another_reply_departs(ours: System) -> None:
    agent = an_agent()
    agent.tool_use_behavior = "stop_on_first_tool"

    found = await replayed(await long_turn(ours), agent)

    assert (kinds(found), found.ending) == ([("reply", "")], "reply")
    assert "-all sent\n+sent to ann" in said(found)


async def asking(system: System, decision: str | None) -> Recording:
    """A turn that asks whether it may pay, and what a person decided."""
    system.endpoint.script_for("pay and send", tool_calls(("send", '{"to": "ann"}'), ("pay", '{"amount": 5}')))
    system.endpoint.script_for("paid 5", completion("It is paid."))
    system.endpoint.script_for("not allowed", completion("I did not pay."))
    turn = await that_waits(system, await system.accept("pay and send"))
    if decision is not None:
        await decide(system, turn, decision)
        await system.ended(turn["turn_id"])
    return await recording_of(system, turn["turn_id"])


@pytest.mark.parametrize("decision", ["approve", "reject", None])
async def test_what_a_person_decided_is_decided_again(ours: System, decision: str | None) -> None:
    recording = await asking(ours, decision)

    found = await replayed(recording)

    assert (found.departures, found.ending) == ([], "reply" if decision else "recording")
    assert found.answered == found.recorded


async def test_a_tool_that_asks_no_more_departs(ours: System) -> None:
    @tool()
    async def pay(amount: int) -> str:
        """Pay an amount."""
        return str(amount)

    found = await replayed(await asking(ours, "approve"), an_agent(tools=(send, pay)))

    assert said(found) == "does not stop to ask for pay, as it did"


async def test_a_tool_that_asks_where_it_did_not_departs(ours: System) -> None:
    @tool(needs_approval=True)
    async def send(to: str) -> str:
        """Send a mail."""
        return to

    found = await replayed(await long_turn(ours), an_agent(tools=(send, pay)))

    assert {kind for kind, _ in kinds(found)} == {"approval"}
    assert said(found).splitlines()[0] == "stops to ask for send, as it did not"


async def test_turns_that_the_memory_service_lacked_are_in_the_prompt_again(ours: System) -> None:
    await ours.say("first")
    ours.faults.set_away("memory", away=True)
    turn = await ours.ended(await ours.accept("second"))
    ours.faults.set_away("memory", away=False)
    for text in ("third", "fourth"):
        await ours.history_of(4)
        await ours.ended(await ours.accept(text))

    found = await replayed(await recording_of(ours, turn["turn_id"]))

    assert turn["reply"]["degraded"] == ["memory", "history"]
    assert [message["content"] for message in ours.questions()[1][1:]] == ["first", "hello", "second"]
    assert (found.departures, found.ending) == ([], "reply")


async def test_a_message_that_was_taken_up_is_taken_up_again(ours: System) -> None:
    release = asyncio.Event()
    ours.endpoint.script_for("mail ann", Held(release, tool_calls(("send", '{"to": "ann"}'))))
    ours.endpoint.script_for("and bob", completion("I mailed ann alone."))
    turn_id = await ours.accept("mail ann")
    await ours.endpoint.asked(1, "mail ann")
    body = {"user_id": "ann", "text": "and bob", "metadata": {"session_id": "s", "overlap": "merge"}}
    await ours.chat.post("/chat/", json=body, headers={"prefer": "respond-async"})
    release.set()
    turn = await ours.ended(turn_id)

    found = await replayed(await recording_of(ours, turn_id))

    assert turn["reply"]["reply"] == "I mailed ann alone."
    assert (found.departures, found.ending, found.answered) == ([], "reply", 3)


async def test_a_turn_that_failed_is_replayed_as_far_as_it_came(ours: System) -> None:
    ours.endpoint.script_for("mail ann", tool_calls(("send", '{"to": "ann"}')))
    ours.endpoint.script_for("sent to ann", status(400))
    turn = await ours.ended(await ours.accept("mail ann"))

    found = await replayed(await recording_of(ours, turn["turn_id"]))

    assert turn["status"] == "failed"
    assert (found.departures, found.ending, found.answered) == ([], "recording", 2)


async def test_a_turn_that_has_not_begun_has_no_recording(ours: System) -> None:
    ours.endpoint.script_for("slow", Held(asyncio.Event(), completion("never")))
    await ours.accept("slow")
    await ours.endpoint.asked(1, "slow")
    second = await ours.accept("second")

    refused = await ours.chat.get(f"/turns/{second}/recording")
    unknown = await ours.chat.get("/turns/nobody/recording")

    assert (refused.status_code, unknown.status_code) == (409, 404)


async def test_a_replay_connects_no_server_of_tools(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    endpoint.script_for("weather", tool_calls(("weather", '{"city": "Lahore"}')))
    endpoint.script_for("sunny", completion("It is sunny."))
    async with running(tmp_path, endpoint, clock, assistant="tests.system.test_replay:forecaster") as system:
        turn = await system.ended(await system.accept("weather"))
        recording = await recording_of(system, turn["turn_id"])

    found = await replayed(recording, a_forecaster("no such command"))

    assert (found.departures, found.ending, found.answered) == ([], "reply", 3)
