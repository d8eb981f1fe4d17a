"""What an endpoint streams, put together; and the ways in which a stream goes wrong."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everturn.errors import TerminalError, TransientError
from everturn.models.openai_model import checked_completion
from everturn.models.streaming import assemble
from everturn.testing.model_answers import chunk, spoken

DONE = b"data: [DONE]\n\n"


async def in_pieces(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for place in range(0, len(body), size):
        yield body[place : place + size]


async def put(*chunks: bytes) -> tuple[dict[str, Any], list[str]]:
    """The completion and what was heard."""
    heard: list[str] = []
    body = await assemble(in_pieces(b"".join(chunks)), heard.append)
    return json.loads(checked_completion(body)), heard


def message_of(completion: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = completion["choices"][0]["message"]
    return message


async def test_text_is_heard_in_pieces_and_put_together() -> None:
    completion, heard = await put(*(piece for piece in spoken("One ", "two").chunks() if isinstance(piece, bytes)))

    assert heard == ["One ", "two"]
    assert message_of(completion)["content"] == "One two"
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] == 2


async def test_pieces_of_a_tool_call_are_put_together() -> None:
    calls = [("now", '{"zone": "UTC"}'), ("now", "{}")]
    completion, _ = await put(*(piece for piece in spoken(calls=calls).chunks() if isinstance(piece, bytes)))

    assert [call["function"] for call in message_of(completion)["tool_calls"]] == [
        {"name": "now", "arguments": '{"zone": "UTC"}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert [call["id"] for call in message_of(completion)["tool_calls"]] == ["call-1", "call-2"]


@pytest.mark.parametrize("index", [{"index": 0}, {}])
async def test_calls_with_ids_of_their_own_are_calls_of_their_own_whatever_their_index(index: dict[str, int]) -> None:
    """Gemini gives all of them the same one."""
    pieces = [
        {**index, "id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")
    ]

    completion, _ = await put(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"))

    assert [call["id"] for call in message_of(completion)["tool_calls"]] == ["a", "b"]


async def test_what_a_provider_adds_to_a_call_is_kept() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    extra = {"extra_content": {"google": {"thought_signature": "s"}}}

    completion, _ = await put(chunk({"tool_calls": [{**call, **extra}]}), DONE)

    assert message_of(completion)["tool_calls"][0]["extra_content"] == extra["extra_content"]


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([chunk({"content": "One"})], "connection_cut"),
        ([b"data: {oops\n\n", DONE], "bad_reply"),
        ([b'data: {"error": {"message": "secret"}}\n\n'], "bad_reply"),
        ([b"data: []\n\n", DONE], "bad_reply"),
        ([chunk({"content": 3}), DONE], "bad_reply"),
        ([b'data: {"choices": [{"delta": "x"}]}\n\n', DONE], "bad_reply"),
        ([b'data: {"choices": ["x"]}\n\n', DONE], "bad_reply"),
        ([b'data: {"choices": [{"delta": {"tool_calls": [3]}}]}\n\n', DONE], "bad_reply"),
        ([b'data: {"choices": [{"delta": {"tool_calls": 3}}]}\n\n', DONE], "bad_reply"),
    ],
)
async def test_a_stream_that_is_none_is_transient(chunks: list[bytes], kind: str) -> None:
    with pytest.raises(TransientError) as raised:
        await put(*chunks)

    assert raised.value.kind == kind
    assert "secret" not in raised.value.message


async def test_a_content_filter_in_the_middle_of_a_stream_is_for_good() -> None:
    with pytest.raises(TerminalError) as raised:
        await put(chunk({"content": "One"}), chunk({}, "content_filter"))

    assert raised.value.kind == "content_filter"


class Counted(bytes):
    """A piece of a stream that counts the bytes which are copied when it is added to others."""

    copied = 0

    def __radd__(self, before: bytes) -> bytes:
        Counted.copied += len(before) + len(self)
        return bytes.__add__(before, self)


async def test_a_line_that_comes_in_many_pieces_is_not_copied_again_with_each() -> None:
    line = chunk({"content": "x" * 20_000}) + DONE
    Counted.copied, heard = 0, list[str]()

    async def stream() -> AsyncIterator[bytes]:
        async for piece in in_pieces(line):
            yield Counted(piece)

    await assemble(stream(), heard.append)

    assert "".join(heard) == "x" * 20_000
    assert Counted.copied <= 3 * len(line)


async def test_a_stream_without_an_end_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000_000

    with pytest.raises(TerminalError) as raised:
        await assemble(endless(), lambda _: None)

    assert raised.value.kind == "reply_too_large"
