"""Tools and rounds of tools, over a real socket."""

import pytest

from everturn.testing.model_answers import (
    Answer,
    Whole,
    completion,
    tool_calls,
)
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.assistants import MEMORY, PROMPT, assistant_at, reply_to, terminal


async def test_the_tool_is_run_and_its_result_sent_back() -> None:
    async with (
        ModelEndpoint(tool_calls(("get_current_time", "{}")), completion("It is noon.")) as endpoint,
        assistant_at(endpoint.base_url) as assistant,
    ):
        reply = await assistant.reply(MEMORY, [], "What time is it?")

        result = endpoint.requests[1].body["messages"][-1]
        assert result["role"] == "tool"
        assert result["tool_call_id"] == "call-1"
        assert result["content"].endswith("Z")

    assert reply == "It is noon."


async def test_thought_signatures_come_back_with_the_result_of_the_tool() -> None:
    script = (tool_calls(("get_current_time", "{}"), thought_signature="sig-4711"), completion("It is noon."))
    async with (
        ModelEndpoint(*script) as endpoint,
        assistant_at(endpoint.base_url, name="gemini-2.5-flash") as assistant,
    ):
        await assistant.reply(MEMORY, [], "What time is it?")

        call = endpoint.requests[1].body["messages"][-2]["tool_calls"][0]

    assert call["extra_content"] == {"google": {"thought_signature": "sig-4711"}}


@pytest.mark.parametrize(
    "arguments", ["{", "7", "[]", '"UTC"', '{"timezone": 7}', '{"timezone": "Mars/Olympus"}', '{"timezone": "../x"}']
)
async def test_bad_arguments_of_a_tool_go_back_to_the_model(arguments: str) -> None:
    script = (tool_calls(("get_current_time", arguments)), completion("Sorry."))
    async with ModelEndpoint(*script) as endpoint, assistant_at(endpoint.base_url) as assistant:
        assert await assistant.reply(MEMORY, [], PROMPT) == "Sorry."

        assert "error" in endpoint.requests[1].body["messages"][-1]["content"].lower()


async def test_an_unknown_tool_goes_back_to_the_model() -> None:
    script = (tool_calls(("launch_rocket", "{}")), completion("Sorry."))
    async with ModelEndpoint(*script) as endpoint, assistant_at(endpoint.base_url) as assistant:
        assert await assistant.reply(MEMORY, [], PROMPT) == "Sorry."

        result = endpoint.requests[1].body["messages"][-1]
        assert result["role"] == "tool"
        assert "launch_rocket" in result["content"]


async def test_a_lone_surrogate_in_a_tool_call_can_be_sent_back() -> None:
    call = tool_calls(("get_current_time", '{"timezone": "\ud83d"}'))

    assert await reply_to(call, completion("Sorry.")) == "Sorry."


def rounds_of_tools(count: int) -> list[Answer]:
    answers = []
    for number in range(count):
        body = tool_calls(("get_current_time", "{}")).body
        answers.append(Whole(body.replace(b"call-1", f"call-{number}".encode())))
    return list(answers)


async def test_ten_rounds_of_tools_are_allowed() -> None:
    assert await reply_to(*rounds_of_tools(10), completion("Finally.")) == "Finally."


async def test_an_eleventh_round_of_tools_is_terminal() -> None:
    assert (await terminal(*rounds_of_tools(11), completion("Finally."))).kind == "too_many_model_calls"
