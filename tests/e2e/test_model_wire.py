"""What goes over the wire to an endpoint and what stays here: keys, connections, logs."""

import asyncio
import json
import traceback

import pytest

from everturn.errors import TerminalError, TransientError
from everturn.testing.fault_proxy import FaultProxy
from everturn.testing.model_answers import (
    Answer,
    Held,
    Reset,
    Whole,
    as_json,
    body_of,
    completion,
    status,
)
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.assistants import KEY, MEMORY, PROMPT, assistant_at, reply_to


async def test_the_key_is_sent() -> None:
    async with ModelEndpoint(completion("Hi.")) as endpoint, assistant_at(endpoint.base_url) as assistant:
        await assistant.reply(MEMORY, [], PROMPT)

        assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_without_a_key_none_is_sent() -> None:
    async with ModelEndpoint(completion("Hi.")) as endpoint, assistant_at(endpoint.base_url, key=None) as assistant:
        await assistant.reply(MEMORY, [], PROMPT)

        assert "authorization" not in endpoint.requests[0].headers


async def test_keys_and_ids_of_openai_in_the_environment_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary-openai")
    async with ModelEndpoint(completion("Hi.")) as endpoint, assistant_at(endpoint.base_url, key=None) as assistant:
        await assistant.reply(MEMORY, [], PROMPT)

        assert "canary-openai" not in json.dumps(dict(endpoint.requests[0].headers))


async def test_an_endpoint_is_asked_for_nothing_that_only_openai_knows() -> None:
    async with ModelEndpoint(completion("Hi.")) as endpoint, assistant_at(endpoint.base_url) as assistant:
        await assistant.reply(MEMORY, [], PROMPT)

        assert set(endpoint.requests[0].body) == {"model", "messages", "tools"}


async def test_the_connection_is_kept_for_the_next_call() -> None:
    async with (
        ModelEndpoint(completion("one"), completion("two")) as endpoint,
        FaultProxy(endpoint.port) as proxy,
        assistant_at(f"http://127.0.0.1:{proxy.port}/v1") as assistant,
    ):
        await assistant.reply(MEMORY, [], PROMPT)
        proxy.stop_accepting()

        assert await assistant.reply(MEMORY, [], PROMPT) == "two"


async def test_a_model_that_comes_back_answers_again() -> None:
    async with (
        ModelEndpoint(otherwise=completion("Hi.")) as endpoint,
        FaultProxy(endpoint.port) as proxy,
        assistant_at(f"http://127.0.0.1:{proxy.port}/v1") as assistant,
    ):
        proxy.refuse()
        with pytest.raises(TransientError):
            await assistant.reply(MEMORY, [], PROMPT)
        await proxy.restore()

        assert await assistant.reply(MEMORY, [], PROMPT) == "Hi."


async def test_a_connection_cut_while_waiting_is_transient() -> None:
    held = Held(asyncio.Event(), completion("late"))
    async with (
        ModelEndpoint(held) as endpoint,
        FaultProxy(endpoint.port) as proxy,
        assistant_at(f"http://127.0.0.1:{proxy.port}/v1") as assistant,
    ):
        call = asyncio.create_task(assistant.reply(MEMORY, [], PROMPT))
        await endpoint.asked(1)
        proxy.cut()
        with pytest.raises(TransientError) as caught:
            await call

    assert caught.value.kind == "connection_cut"


async def test_the_sdks_write_no_log_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    await reply_to(completion("Hi."))

    assert [record.name for record in caplog.records if record.name.startswith(("openai", "httpx", "httpcore"))] == []


SECRETS = (KEY, PROMPT, "endpoint's own words", "canary-reply")


@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(401),
        Whole(b"canary-reply"),
        as_json({"error": {"message": "canary-reply"}}),
        completion("canary-reply", finish_reason="content_filter"),
        completion(None, refusal="canary-reply"),
        body_of({"role": "assistant", "content": ["canary-reply"]}, "stop"),
        completion("canary-reply" * 100_000),
        Reset(),
    ],
)
async def test_no_error_and_no_log_holds_prompt_reply_or_key(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    with pytest.raises((TransientError, TerminalError)) as caught:
        await reply_to(answer)

    written = caught.value.message + "".join(traceback.format_exception(caught.value)) + caplog.text
    assert [secret for secret in SECRETS if secret in written] == []
