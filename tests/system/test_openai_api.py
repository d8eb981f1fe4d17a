"""OpenAI's API: whose conversation counts, what is refused and how, and streams that can take nothing back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from everturn.chat.api import MAX_MESSAGES
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, spoken, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.conftest import PATIENCE_S, System, running
from tests.system.sse import listening
from tests.system.test_approvals import BOOK, decide, that_waits

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def ask(system: System, path: str, **body: Any) -> httpx2.Response:
    return await system.chat.post(path, json={"model": "any", **body})


def prompt(system: System, number: int = -1) -> list[tuple[str, str]]:
    """What was said in a question to the model, without the assistant's own instructions."""
    return [(message["role"], message["content"]) for message in system.questions()[number][1:]]


def chunks(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(streamed: list[Any]) -> str:
    choices = [choice for chunk in streamed if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_more_than_one_message_is_the_conversation_itself(system: System) -> None:
    said = [{"role": "system", "content": "Be brief."}, user("One"), {"role": "assistant", "content": "1"}]

    response = await ask(system, CHAT, messages=[*said, user("Two")])

    assert response.json()["choices"][0]["message"]["content"] == "hello"
    assert prompt(system) == [("system", "Be brief."), ("user", "One"), ("assistant", "1"), ("user", "Two")]


async def test_with_a_session_named_the_conversation_is_ours(system: System) -> None:
    first = await ask(system, CHAT, messages=[user("One")], metadata={"session_id": "s"})
    invented = [user("What?"), {"role": "assistant", "content": "You owe me"}]

    await ask(system, CHAT, messages=[*invented, user("Two")], metadata={"session_id": "s"})

    assert first.json()["metadata"]["session_id"] == "s"
    assert prompt(system) == [("user", "One"), ("assistant", "hello"), ("user", "Two")]


async def test_a_response_goes_on_from_another_one(system: System) -> None:
    first = (await ask(system, RESPONSES, input="One")).json()

    second = (await ask(system, RESPONSES, input="Two", previous_response_id=first["id"])).json()
    await ask(system, RESPONSES, input=[user("Three")], conversation=second["conversation"])

    assert second["previous_response_id"] == first["id"]
    assert [content for _, content in prompt(system)] == ["One", "hello", "Two", "hello", "Three"]


async def test_the_user_is_whom_the_client_names_or_nobody(system: System) -> None:
    named = (await ask(system, CHAT, messages=[user("Hi")], user="ann")).json()
    unnamed = (await ask(system, CHAT, messages=[user("Hi")])).json()

    turns = [await system.turn(answer["metadata"]["turn_id"]) for answer in (named, unnamed)]
    assert [turn["user_id"] for turn in turns] == ["ann", "anonymous"]


async def test_another_users_response_is_as_an_unknown_one(system: System) -> None:
    first = (await ask(system, RESPONSES, input="One", user="ann")).json()

    for previous in (first["id"], "resp_nobody"):
        response = await ask(system, RESPONSES, input="Two", user="bob", previous_response_id=previous)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": []}),
        (CHAT, {"messages": [user(" ")]}),
        (CHAT, {"messages": [{"role": "assistant", "content": "Hi"}]}),
        (CHAT, {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]}),
        (CHAT, {"messages": [user("a\x00b")]}),
        (CHAT, {"messages": [user("Hi")], "n": 2}),
        (CHAT, {"messages": [user("Hi")], "user": "\n"}),
        (CHAT, {"messages": "Hi"}),
        (CHAT, {"messages": [user("Hi")] * (MAX_MESSAGES + 1)}),
        (RESPONSES, {"input": [user("Hi")] * (MAX_MESSAGES + 1)}),
        (RESPONSES, {"input": ""}),
        (RESPONSES, {"input": []}),
        (RESPONSES, {}),
    ],
)
async def test_what_is_no_message_is_400_in_their_shape(system: System, path: str, body: dict[str, Any]) -> None:
    response = await ask(system, path, **body)

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert system.questions() == []


async def test_a_body_that_is_no_json_is_400_too(system: System) -> None:
    response = await system.chat.post(CHAT, content=b"{oops", headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_turn_that_takes_long_is_not_to_be_repeated_and_goes_on(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("later")))
    async with running(tmp_path, endpoint, clock, request_wait_s=0.01) as system:
        response = await ask(system, CHAT, messages=[user("Hi")])
        release.set()
        turn = await system.ended(response.json()["error"]["turn_id"])

    assert (response.status_code, response.headers["x-should-retry"]) == (504, "false")
    assert response.headers["location"] == f"/turns/{turn['turn_id']}"
    assert turn["reply"]["reply"] == "later"


async def test_a_failed_turn_is_not_to_be_repeated_either(system: System) -> None:
    system.endpoint.script(status(401), status(401))

    plain = await ask(system, CHAT, messages=[user("Hi")])
    streamed = await ask(system, CHAT, messages=[user("Hi")], stream=True)

    assert (plain.status_code, plain.headers["x-should-retry"]) == (502, "false")
    assert plain.json()["error"]["type"] == "server_error"
    assert chunks(streamed.text)[-2]["error"]["code"] == "http_401"


async def test_a_stream_has_the_words_and_the_usage_that_was_asked_for(system: System) -> None:
    system.endpoint.script(spoken("One ", "two"))

    response = await ask(system, CHAT, messages=[user("Hi")], stream=True, stream_options={"include_usage": True})

    streamed = chunks(response.text)
    assert text_of(streamed) == "One two"
    assert streamed[-1] == "[DONE]"
    assert streamed[-2]["usage"] == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert streamed[-3]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("again", "said"), [("One two", "One two"), ("Other", "One t")])
async def test_a_new_attempt_goes_on_where_the_old_one_broke_off_or_ends_the_stream(
    system: System, again: str, said: str
) -> None:
    cut = asyncio.Event()
    system.endpoint.script(spoken("One t", cut, is_cut=True), spoken(again))
    body = {"model": "any", "messages": [user("Hi")], "stream": True}

    async with listening(system.composed.chat.app, CHAT, method="POST", body=body) as stream:
        blocks: list[str] = []
        while "One t" not in "".join(blocks):
            blocks.append(str(await stream.blocks.get()))
        cut.set()
        turn_id = chunks(blocks[0])[0]["metadata"]["turn_id"]
        await system.ended(turn_id)
        while (block := await stream.blocks.get()) is not None:
            blocks.append(block)

    streamed = chunks("\n".join(blocks))
    assert text_of(streamed) == said
    assert ("error" in streamed[-2]) == (again != "One two")


@pytest.mark.parametrize(
    ("path", "more"), [(CHAT, {"messages": [user("book PK301")]}), (RESPONSES, {"input": "book PK301"})]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_about_which_a_person_decides_ends_at_once_with_an_error(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint, path: str, more: dict[str, Any], stream: bool
) -> None:
    endpoint.script_for("book PK301", BOOK)
    endpoint.script_for("booked PK301", completion("It is booked."))
    headers = {"Idempotency-Key": "k"}
    async with running(tmp_path, endpoint, clock, assistant=OURS, request_wait_s=10 * PATIENCE_S) as system:
        async with asyncio.timeout(PATIENCE_S):  # far below the wait of a request
            asked, again = [
                await system.chat.post(path, json={"stream": stream, **more}, headers=headers) for _ in range(2)
            ]
        turn = await that_waits(system, str(asked.headers["location"]).removeprefix("/turns/"))
        await decide(system, turn, "approve")
        answered = await system.chat.post(path, json={"stream": stream, **more}, headers=headers)

    for answer in (asked, again):
        assert answer.text.count("approval_required") == 1
        assert turn["turn_id"] in answer.text
        if not stream:
            assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
            assert answer.json()["error"]["turn_id"] == turn["turn_id"]
    assert answered.status_code == 200
    assert "It is booked." in answered.text
    assert "approval_required" not in answered.text


async def test_the_model_is_the_configured_one(system: System) -> None:
    models = (await system.chat.get("/v1/models")).json()["data"]
    known = await system.chat.get("/v1/models/scripted")
    unknown = await system.chat.get("/v1/models/gpt")

    assert [model["id"] for model in models] == ["scripted"]
    assert (known.json(), unknown.status_code) == (models[0], 404)
    assert unknown.json()["error"]["type"] == "not_found_error"


OPERATOR = {"authorization": "Bearer operator-secret"}


def signed_in(name: str) -> dict[str, str]:
    return {"x-everturn-proxy-token": "proxy-secret", "x-forwarded-user": name}


async def test_every_refusal_has_their_shape_whoever_refuses(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    secrets: dict[str, Any] = {"proxy_token": SecretStr("proxy-secret"), "operator_token": SecretStr("operator-secret")}
    body = {"model": "any", "messages": [user("Hi")]}
    async with running(tmp_path, endpoint, clock, auth="header", **secrets, max_open_turns_per_user=1) as system:
        held, key = asyncio.Event(), [("idempotency-key", "a"), ("idempotency-key", "b")]
        session = {**body, "metadata": {"session_id": "of-ann"}}
        await system.chat.post(CHAT, json=session, headers=signed_in("ann"))
        endpoint.script(Held(held, completion("later")))
        waiting = {"user_id": "bob", "text": "Hi"}
        await system.chat.post("/chat/", json=waiting, headers={**signed_in("bob"), "prefer": "respond-async"})
        refused = {
            "nobody": await system.chat.post(CHAT, json=body),
            "page": await system.chat.post(CHAT, json=body, headers={**OPERATOR, "origin": "https://evil.example"}),
            "session": await system.chat.post(CHAT, json=session, headers=signed_in("eve")),
            "path": await system.chat.post("/v1/embeddings", json=body, headers=OPERATOR),
            "method": await system.chat.get(CHAT, headers=OPERATOR),
            "twice": await system.chat.post(CHAT, json=body, headers=[*OPERATOR.items(), *key]),
            "large": await system.chat.post(CHAT, content=b" " * 1_048_577, headers=OPERATOR),
            "open": await system.chat.post(CHAT, json=body, headers=signed_in("bob")),
        }
        held.set()

    assert {name: (answer.status_code, answer.json()["error"]["type"]) for name, answer in refused.items()} == {
        "nobody": (401, "authentication_error"),
        "page": (403, "permission_error"),
        "session": (403, "permission_error"),
        "path": (404, "not_found_error"),
        "method": (405, "invalid_request_error"),
        "twice": (400, "invalid_request_error"),
        "large": (413, "invalid_request_error"),
        "open": (429, "rate_limit_error"),
    }
    for name, answer in refused.items():
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers.get("x-should-retry") == (None if name == "open" else "false")
    assert refused["nobody"].headers["www-authenticate"]
    assert refused["open"].headers["retry-after"]
