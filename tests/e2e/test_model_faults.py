"""The assistant against a real endpoint on a real socket, for everything that an endpoint can do wrong."""

import asyncio
from datetime import timedelta
from email.utils import format_datetime

import pytest

from everturn.contracts.fields import utc_now
from everturn.errors import TerminalError, TransientError
from everturn.testing.model_answers import (
    Answer,
    Cut,
    Endless,
    Held,
    Reset,
    Whole,
    as_json,
    body_of,
    completion,
    status,
)
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.assistants import KEY, MEMORY, PROMPT, assistant_at, reply_to, terminal, transient


async def test_a_completion_is_the_reply() -> None:
    assert await reply_to(completion("Hello, Junaid!")) == "Hello, Junaid!"


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_a_status_that_may_pass_is_transient(code: int) -> None:
    error = await transient(status(code))

    assert error.kind == f"http_{code}"
    assert error.retry_after_s is None


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 413, 422])
async def test_a_status_that_will_not_pass_is_terminal(code: int) -> None:
    assert (await terminal(status(code))).kind == f"http_{code}"


@pytest.mark.parametrize("code", [400, 422])
async def test_a_wrong_request_fails_in_the_words_of_the_endpoint_and_in_none_of_the_prompt(code: int) -> None:
    told = f"Unsupported value: temperature. {PROMPT}, Bearer {KEY}"

    error = await terminal(Whole(as_json({"error": {"message": told}}).body, code))

    assert error.message == f"the model refused the request ({code}): Unsupported value: temperature. …, Bearer …"


async def test_a_wrong_request_without_a_reason_says_so() -> None:
    assert (await terminal(Whole(b"no", 400))).message == "the model refused the request (400) and does not say why"


async def test_an_endless_reason_is_not_read_to_its_end() -> None:
    assert (await terminal(Endless(400))).kind == "http_400"


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_retry_after_in_seconds_is_passed_on(code: int) -> None:
    assert (await transient(status(code, retry_after="7"))).retry_after_s == 7


async def test_retry_after_as_a_date_is_passed_on() -> None:
    until = format_datetime(utc_now() + timedelta(seconds=300), usegmt=True)

    error = await transient(status(503, retry_after=until))

    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 300


async def test_retry_after_in_milliseconds_is_passed_on() -> None:
    assert (await transient(status(429, retry_after_ms="1500"))).retry_after_s == 1.5


async def test_a_retry_after_of_ten_minutes_is_still_waited_for() -> None:
    assert (await transient(status(429, retry_after="600"))).retry_after_s == 600


async def test_a_retry_after_of_more_than_ten_minutes_is_terminal() -> None:
    assert (await terminal(status(429, retry_after="601"))).kind == "retry_after_too_long"


async def test_a_failed_call_is_made_once_since_the_policy_of_the_step_governs() -> None:
    async with ModelEndpoint() as endpoint, assistant_at(endpoint.base_url) as assistant:
        with pytest.raises(TransientError):
            await assistant.reply(MEMORY, [], PROMPT)

        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(code: int) -> None:
    async with ModelEndpoint(completion("gold")) as elsewhere:
        answer = Whole(b"", code, {"location": f"{elsewhere.base_url}/chat/completions"})
        error = await terminal(answer)

        assert error.kind == "redirected"
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Whole(b"<html>busy</html>", headers={"content-type": "text/html"}),
        Whole(b""),
        Whole(b"", 204),
        Whole(b"[" * 200_000),
        as_json([]),
        as_json({}),
        as_json({"choices": []}),
        as_json({"choices": None}),
        as_json({"choices": {"0": 1}}),
        as_json({"choices": ["text"]}),
        as_json({"error": {"message": "overloaded"}}),
        as_json({"error": "overloaded", "choices": [{"message": {"content": "half"}}]}),
        body_of(None, "stop"),
        body_of({"role": "assistant", "content": {"text": "hi"}}, "stop"),
        body_of({"role": "assistant", "content": 7}, "stop"),
        body_of({"role": "assistant", "content": None, "tool_calls": "get_current_time"}, "tool_calls"),
        body_of({"role": "assistant", "content": None, "tool_calls": [{"id": "call-1"}]}, "tool_calls"),
        body_of(
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "x"}}]}, "stop"
        ),
        Whole(completion("hi").body, headers={"content-encoding": "gzip"}),
    ],
)
async def test_a_200_that_is_no_completion_is_transient(answer: Whole) -> None:
    assert (await transient(answer)).kind == "bad_reply"


@pytest.mark.parametrize("text", [None, "", " \n\t"])
async def test_an_empty_reply_is_transient(text: str | None) -> None:
    assert (await transient(completion(text))).kind == "empty_reply"


async def test_a_reply_that_ran_out_of_tokens_before_its_first_word_is_transient() -> None:
    assert (await transient(completion(None, finish_reason="length"))).kind == "bad_reply"


async def test_a_reply_that_ran_out_of_tokens_later_is_a_reply() -> None:
    assert await reply_to(completion("Once upon a", finish_reason="length")) == "Once upon a"


async def test_a_refusal_in_words_is_a_reply() -> None:
    assert await reply_to(completion("I cannot help with that.")) == "I cannot help with that."


@pytest.mark.parametrize("text", [None, "", "The first half of"])
async def test_a_content_filter_is_terminal(text: str | None) -> None:
    assert (await terminal(completion(text, finish_reason="content_filter"))).kind == "content_filter"


async def test_a_refusal_as_such_is_terminal() -> None:
    assert (await terminal(completion(None, refusal="no"))).kind == "refused"


async def test_an_answer_cut_in_the_middle_is_transient() -> None:
    assert (await transient(Cut())).kind == "connection_cut"


async def test_a_reset_is_transient() -> None:
    assert (await transient(Reset())).kind == "connection_cut"


async def test_a_refused_connection_is_transient() -> None:
    async with ModelEndpoint() as gone:
        pass

    async with assistant_at(gone.base_url) as assistant:
        with pytest.raises(TransientError) as caught:
            await assistant.reply(MEMORY, [], PROMPT)

    assert caught.value.kind == "unreachable"


async def test_a_name_without_an_address_is_transient() -> None:
    async with assistant_at("http://nowhere.invalid/v1") as assistant:
        with pytest.raises(TransientError) as caught:
            await assistant.reply(MEMORY, [], PROMPT)

    assert caught.value.kind == "unreachable"


async def test_an_endpoint_that_never_answers_is_a_timeout() -> None:
    held = Held(asyncio.Event(), completion("late"))
    async with ModelEndpoint(held) as endpoint, assistant_at(endpoint.base_url, timeout_s=0.05) as assistant:
        with pytest.raises(TransientError) as caught:
            await assistant.reply(MEMORY, [], PROMPT)

    assert caught.value.kind == "timeout"


async def test_a_cancelled_call_is_cancelled_and_the_next_one_works() -> None:
    held = Held(asyncio.Event(), completion("late"))
    async with ModelEndpoint(held, completion("next")) as endpoint, assistant_at(endpoint.base_url) as assistant:
        call = asyncio.create_task(assistant.reply(MEMORY, [], PROMPT))
        await endpoint.asked(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert await assistant.reply(MEMORY, [], PROMPT) == "next"


@pytest.mark.parametrize("answer", [status(503), Endless()])
async def test_an_answer_that_is_not_read_to_its_end_leaves_no_connection_open(answer: Answer) -> None:
    async with ModelEndpoint(answer) as endpoint, assistant_at(endpoint.base_url) as assistant:
        with pytest.raises((TransientError, TerminalError)):
            await assistant.reply(MEMORY, [], PROMPT)

        async with asyncio.timeout(10):  # only so that a connection that stays open fails and does not hang
            await endpoint.hung_up()


async def test_a_reply_of_exactly_1_mib_is_kept() -> None:
    text = "é" * (512 * 1024)

    assert await reply_to(completion(text)) == text


async def test_a_reply_of_more_than_1_mib_is_terminal() -> None:
    assert (await terminal(completion("é" * (512 * 1024) + "."))).kind == "reply_too_large"


async def test_a_reply_of_10_mb_is_terminal() -> None:
    assert (await terminal(completion("x" * 10_000_000))).kind == "reply_too_large"


async def test_a_reply_that_never_ends_is_terminal() -> None:
    assert (await terminal(Endless())).kind == "reply_too_large"


async def test_broken_utf_8_is_replaced() -> None:
    answer = completion("good MARK bye")

    assert await reply_to(Whole(answer.body.replace(b"MARK", b"\xff\xfe"))) == "good \ufffd\ufffd bye"


async def test_a_lone_surrogate_is_replaced() -> None:
    assert await reply_to(completion("good \ud83d bye")) == "good \ufffd bye"


async def test_a_pair_of_surrogates_is_a_character() -> None:
    assert await reply_to(completion("good \U0001f600 bye")) == "good \U0001f600 bye"
