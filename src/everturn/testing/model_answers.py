"""What a scripted model endpoint can answer: completions, errors, and everything that goes wrong on a wire."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole HTTP answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """The head of an answer and a part of its body, then the end of the connection."""

    body: bytes = b'{"id": "chatcmpl-cut", "choices": [{"mess'


@dataclass(frozen=True, slots=True)
class Reset:
    """No answer: the connection is reset (RST)."""


@dataclass(frozen=True, slots=True)
class Held:
    """No answer before `until` is set; then `then`."""

    until: asyncio.Event
    then: "Answer"


@dataclass(frozen=True, slots=True)
class Endless:
    """A body that never ends, as fast as it is read."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer in pieces, if the client asks for a stream, else as a whole; at an event it waits until that is set.

    `calls` of tools come after the text. `is_cut`: the connection ends after the last piece, and the answer has no
    end.
    """

    pieces: Sequence[str | asyncio.Event]
    calls: Sequence[tuple[str, str]] = ()
    is_cut: bool = False

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    def whole(self) -> Whole:
        """The same as one answer."""
        return tool_calls(*self.calls, content=self.text) if self.calls else completion(self.text)

    def chunks(self) -> Iterator[bytes | asyncio.Event]:
        """The same as it is on the wire."""
        for piece in self.pieces:
            yield chunk({"content": piece}) if isinstance(piece, str) else piece
        for place, (name, arguments) in enumerate(self.calls):
            call: dict[str, Any] = {"index": place, "id": f"call-{place + 1}", "type": "function"}
            yield chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
            yield chunk({"tool_calls": [{"index": place, "function": {"arguments": arguments}}]})
        if not self.is_cut:
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            yield chunk({}, "tool_calls" if self.calls else "stop")
            yield chunk({}, choices=[], usage=usage) + b"data: [DONE]\n\n"


Answer = Whole | Cut | Reset | Held | Endless | Spoken


def spoken(*pieces: str | asyncio.Event, calls: Sequence[tuple[str, str]] = (), is_cut: bool = False) -> Spoken:
    return Spoken(pieces, calls, is_cut)


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """A piece of a streamed completion, as it is on the wire."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "scripted"}
    return b"data: " + json.dumps({**whole, "choices": choices, **more}).encode() + b"\n\n"


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> Whole:
    """A chat completion that says `text`; `message` adds fields to its message."""
    return body_of({"role": "assistant", "content": text, **message}, finish_reason)


def tool_calls(*calls: tuple[str, str], thought_signature: str | None = None, content: str | None = None) -> Whole:
    """A completion that calls tools: names with arguments, which are JSON in a string. Call ids are `call-1` and so on.

    `thought_signature` is where Gemini puts it.
    """
    listed: list[dict[str, Any]] = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls, start=1)
    ]
    if thought_signature is not None:
        listed[0]["extra_content"] = {"google": {"thought_signature": thought_signature}}
    return body_of({"role": "assistant", "content": content, "tool_calls": listed}, "tool_calls")


def body_of(message: Mapping[str, Any] | None, finish_reason: str) -> Whole:
    """A completion with `message` as it is, right or wrong."""
    return as_json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "scripted",
            "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


def as_json(value: object) -> Whole:
    """`value` as JSON, with status 200."""
    return Whole(json.dumps(value).encode())


def status(code: int, **headers: str) -> Whole:
    """An error of the endpoint, whose sentence only a 400 or 422 passes on; `retry_after` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Whole(json.dumps({"error": {"message": "endpoint's own words"}}).encode(), code, named)
