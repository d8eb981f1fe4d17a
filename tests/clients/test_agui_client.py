"""`@ag-ui/client` from npm, which checks the order of the events that it gets."""

import asyncio
from pathlib import Path

from everturn.testing.model_answers import completion, spoken, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.clients.conftest import RunNode
from tests.e2e.conftest import SOURCE, Machine


async def test_an_http_agent_talks_over_several_runs_of_a_thread(
    machine: Machine, endpoint: ModelEndpoint, node: RunNode
) -> None:
    endpoint.script(spoken("Hello ", "Junaid", calls=[("get_current_time", "{}")]), spoken("It is late"))
    seen = asyncio.Event()
    endpoint.script(spoken("I was goi", seen, is_cut=True), completion("seen"), spoken("You are ", "Junaid"))
    await machine.up()

    client = asyncio.ensure_future(node("agui.mjs", f"{machine.chat_url}/agui", f"{endpoint.base_url}/seen"))
    await endpoint.asked(4)  # the client itself, once it has read the words of the attempt that is to break off
    seen.set()
    results = await client

    first, second = results["runs"]
    assert (first["types"][0], first["types"][-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert first["result"]["reply"] == "It is late"
    assert "TOOL_CALL_RESULT" in first["types"]
    assert "MESSAGES_SNAPSHOT" in second["types"]
    contents = [message.get("content") for message in results["messages"] if message["role"] in ("user", "assistant")]
    assert [content for content in contents if content] == [
        "My name is Junaid",
        "Hello Junaid",
        "It is late",
        "What is my name?",
        "You are Junaid",
    ]


async def test_an_http_agent_approves_a_call_by_resume(
    machine: Machine, endpoint: ModelEndpoint, node: RunNode
) -> None:
    endpoint.script(tool_calls(("book", '{"flight": "PK301"}')), completion("It is booked."))
    root = Path(__file__).parent.parent.parent
    ours = {"EVERTURN_ASSISTANT": "tests.system.paid_assistant:agent", "PYTHONPATH": f"{SOURCE}:{root}"}
    await machine.up(**ours)

    results = await node("agui-approval.mjs", f"{machine.chat_url}/agui")

    assert [interrupt["reason"] for interrupt in results["interrupts"]] == ["tool_call"]
    assert results["result"]["reply"] == "It is booked."
    roles = [message["role"] for message in results["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"]
