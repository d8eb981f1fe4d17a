"""Clients of OpenAI's API: its own for Python and for Node, the `ai` package, the Agents SDK with us as its model."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from everturn.testing.model_answers import Held, completion, spoken, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.clients.conftest import RunNode
from tests.e2e.conftest import Machine


@pytest.fixture
async def client(machine: Machine, endpoint: ModelEndpoint) -> AsyncIterator[AsyncOpenAI]:
    """The client of a running system, whose model answers by script."""
    machine.settings["EVERTURN_REQUEST_WAIT_S"] = "2"
    await machine.up()
    async with AsyncOpenAI(base_url=f"{machine.chat_url}/v1", api_key="none") as made:
        yield made


async def test_openais_client_for_python_gets_completions(client: AsyncOpenAI, endpoint: ModelEndpoint) -> None:
    endpoint.script(completion("whole"), spoken("in ", "pieces"))

    whole = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hi"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert whole.choices[0].message.content == "whole"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 2
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "in pieces"
    assert chunks[-1].usage is not None
    assert [model.id async for model in client.models.list()] == ["scripted"]


async def test_openais_client_for_python_gets_responses(client: AsyncOpenAI, endpoint: ModelEndpoint) -> None:
    endpoint.script(completion("whole"), spoken("in ", "pieces"), completion("again"))

    first = await client.responses.create(model="m", input="One")
    async with client.responses.stream(model="m", input="Two", previous_response_id=first.id) as stream:
        kinds = [event.type async for event in stream]
        second = await stream.get_final_response()
    assert second.conversation is not None
    third = await client.responses.create(model="m", input="Three", conversation=second.conversation.id)

    assert (first.output_text, second.output_text, third.output_text) == ("whole", "in pieces", "again")
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    contents = [message["content"] for message in endpoint.requests[-1].body["messages"]]
    assert contents[1:] == ["One", "whole", "Two", "in pieces", "Three"]


async def test_a_client_edits_what_was_said_and_has_an_answer_again(
    client: AsyncOpenAI, endpoint: ModelEndpoint
) -> None:
    endpoint.script(completion("one"), completion("one again"), completion("two"))
    first: list[ChatCompletionMessageParam] = [{"role": "user", "content": "One"}]
    edited: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Uno"},
        {"role": "assistant", "content": "changed"},
        {"role": "user", "content": "Due"},
    ]

    answers = [await client.chat.completions.create(model="m", messages=asked) for asked in (first, first, edited)]

    assert [answer.choices[0].message.content for answer in answers] == ["one", "one again", "two"]
    contents = [message["content"] for message in endpoint.requests[-1].body["messages"]]
    assert contents[1:] == ["Uno", "changed", "Due"]


async def test_openais_client_for_python_raises_its_errors_and_repeats_nothing(
    client: AsyncOpenAI, endpoint: ModelEndpoint
) -> None:
    endpoint.script(status(401), Held(asyncio.Event(), completion("never")))

    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": ""}])
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.InternalServerError) as late:
        await client.responses.create(model="m", input="Hi")

    assert (failed.value.status_code, late.value.status_code) == (502, 504)
    assert late.value.code == "turn_goes_on"
    assert len(endpoint.requests) == 2


async def test_openais_client_for_python_knows_why_it_is_refused(machine: Machine, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script(completion("to Ann"), Held(release, completion("later")))
    proxy = {"EVERTURN_AUTH": "header", "EVERTURN_PROXY_TOKEN": "of-the-proxy"}
    await machine.up(**proxy, EVERTURN_MAX_OPEN_TURNS_PER_USER="1")
    url = f"{machine.chat_url}/v1"

    def signed_in(name: str) -> AsyncOpenAI:
        headers = {"x-everturn-proxy-token": "of-the-proxy", "x-forwarded-user": name}
        return AsyncOpenAI(base_url=url, api_key="none", max_retries=0, default_headers=headers)

    async with signed_in("ann") as ann, signed_in("bob") as bob, AsyncOpenAI(base_url=url, api_key="x") as nobody:
        await ann.responses.create(model="m", input="Hi", conversation="of-ann")
        with pytest.raises(openai.AuthenticationError) as unknown:
            await nobody.responses.create(model="m", input="Hi")
        with pytest.raises(openai.PermissionDeniedError) as foreign:
            await bob.responses.create(model="m", input="Hi", conversation="of-ann")
        with pytest.raises(openai.NotFoundError) as missing:
            await bob.models.retrieve("gpt")
        waits = asyncio.ensure_future(bob.responses.create(model="m", input="Hi"))
        await endpoint.asked(2)
        with pytest.raises(openai.RateLimitError) as too_many:
            await bob.responses.create(model="m", input="Hi again")
        release.set()
        await waits

    refused = [unknown.value, foreign.value, missing.value, too_many.value]
    assert [error.code for error in refused] == ["invalid_api_key", None, "model_not_found", "rate_limit_exceeded"]
    assert all(isinstance(error.body, dict) and error.body["message"] for error in refused)


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def test_the_agents_sdk_has_it_as_its_model(
    client: AsyncOpenAI,
    endpoint: ModelEndpoint,
    kind: type[OpenAIChatCompletionsModel] | type[OpenAIResponsesModel],
) -> None:
    endpoint.script(completion("whole"), spoken("in ", "pieces"))
    agent = Agent(name="a", instructions="Be brief.", model=kind(model="m", openai_client=client))
    quiet = RunConfig(tracing_disabled=True)

    whole = await Runner.run(agent, "Hi", run_config=quiet)
    streamed = Runner.run_streamed(agent, "Hi", run_config=quiet)
    async for _ in streamed.stream_events():
        pass

    assert (whole.final_output, streamed.final_output) == ("whole", "in pieces")
    assert ("system", "Be brief.") in [
        (message["role"], message["content"]) for message in endpoint.requests[0].body["messages"]
    ]


async def test_the_clients_for_node_read_it_too(machine: Machine, endpoint: ModelEndpoint, node: RunNode) -> None:
    endpoint.script(completion("one"), spoken("t", "wo"), completion("three"), spoken("fo", "ur"))
    endpoint.script(completion("five"), spoken("si", "x"))
    endpoint.script(*map(spoken, ("seven", "seven again", "eight", "nine")))
    await machine.up()

    results = await node("openai.mjs", f"{machine.chat_url}/v1")

    assert (results["completion"]["text"], results["streamed"]) == ("one", "two")
    assert results["completion"]["usage"]["total_tokens"] == results["usage"]["total_tokens"] == 2
    assert results["responses"] == ["three", "four"]
    assert results["events"][-1] == "response.completed"
    assert results["error"] == {"name": "BadRequestError", "status": 400, "type": "invalid_request_error"}
    assert (results["generated"], "".join(results["pieces"]), results["tokens"]) == ("five", "six", 2)
    assert results["chat"] == [["Seven", "seven"], ["Seven", "seven again"], ["Seven", "seven again", "Nine", "nine"]]
    asked = [(message["role"], message["content"]) for message in endpoint.requests[5].body["messages"]]
    assert asked[1:] == [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Six")]
    edited = [(message["role"], message["content"]) for message in endpoint.requests[9].body["messages"]]
    assert edited[1:] == [("user", "Seven"), ("assistant", "seven again"), ("user", "Nine")]
