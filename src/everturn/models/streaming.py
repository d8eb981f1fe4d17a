"""Answers as a model streams them: those of any model of the Agents SDK, and of an endpoint that streams.

What an endpoint streams is put together to the completion that it would have been as a whole, and checked as that.
https://platform.openai.com/docs/api-reference/chat-streaming
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from agents import Model, ModelResponse, Usage

from everturn.errors import TransientError
from everturn.models.faults import MAX_REPLY_BYTES, bad_reply, too_large

# Gets the text of an answer, piece by piece.
OnText = Callable[[str], None]

ON_TEXT: ContextVar[OnText | None] = ContextVar("on_text", default=None)
"""What gets the text of the endpoint's answers in this task; None asks for whole answers."""

# What is around each piece makes a stream many times as long as its text.
_MOST_STREAM_BYTES = 128 * MAX_REPLY_BYTES
# All other texts of a message come in pieces.
_WHOLE = frozenset({"id", "type", "role", "name"})
# What of a message is not merged piece by piece.
_APART = frozenset({"content", "tool_calls"})


@runtime_checkable
class StreamingModel(Protocol):
    """A model that streams its text without the events of the SDK's `stream_response`."""

    async def stream_text(self, on_text: OnText, *asked: Any, **more: Any) -> ModelResponse:
        """As `get_response`; `on_text` gets the text as it comes."""
        ...


async def streamed(model: Model, on_text: OnText, asked: Sequence[Any], more: Mapping[str, Any]) -> ModelResponse:
    """The answer of `model` to what `get_response` would be asked. A model that cannot stream gives it as a whole."""
    if isinstance(model, StreamingModel):
        return await model.stream_text(on_text, *asked, **more)
    response: Any = None
    try:
        async for event in model.stream_response(*asked, **more):
            if event.type == "response.output_text.delta":
                on_text(event.delta)
            elif event.type == "response.completed":
                response = event.response
    except NotImplementedError:
        return await model.get_response(*asked, **more)
    if response is None:
        raise TransientError("the stream of the model ended without an answer", kind="bad_reply")
    return ModelResponse(output=response.output, usage=_usage(response.usage), response_id=response.id)


def _usage(usage: Any) -> Usage:
    if usage is None:
        return Usage(requests=1)
    return Usage(
        requests=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )


async def assemble(stream: AsyncIterator[bytes], on_text: OnText) -> bytes:
    """The completion that an endpoint streams, unchecked; `on_text` gets its text.

    Raises TransientError if the stream breaks off or holds no pieces of one, TerminalError if it is too long.
    """
    pieces, size, begun = _Pieces(on_text), 0, list[bytes]()
    async for chunk in stream:
        size += len(chunk)
        if size > _MOST_STREAM_BYTES:
            raise too_large()
        rest, *lines = chunk.split(b"\n")
        begun.append(rest)
        for line in lines:
            pieces.add(b"".join(begun))
            begun = [line]
    pieces.add(b"".join(begun))
    return pieces.completion()


class _Pieces:
    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._message: dict[str, Any] = {"role": "assistant"}
        self._texts: list[str] = []
        self._calls: list[tuple[Any, dict[str, Any]]] = []
        self._finish_reason: Any = None
        self._is_done = False
        self._about: dict[str, Any] = {}

    def add(self, line: bytes) -> None:
        """A line of the stream; other fields than `data` say nothing."""
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or not data:
            return
        if data == b"[DONE]":
            self._is_done = True
            return
        try:
            chunk = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise bad_reply("a piece of its stream is not JSON") from None
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise bad_reply("its stream holds an error")
        self._about |= {name: chunk[name] for name in ("id", "created", "model", "usage") if chunk.get(name)}
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices:
            self._add_choice(choices[0])

    def _add_choice(self, choice: Any) -> None:
        delta = choice.get("delta") or {} if isinstance(choice, dict) else None
        if not isinstance(delta, dict) or not isinstance(delta.get("tool_calls") or [], list):
            raise bad_reply("a piece of its stream has a wrong shape")
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if isinstance(content := delta.get("content"), str):
            self._texts.append(content)
            self._on_text(content)
        elif content is not None:
            raise bad_reply("its content is not text")
        _merge(self._message, {name: value for name, value in delta.items() if name not in _APART})
        for call in delta.get("tool_calls") or ():
            self._add_call(call)

    def _add_call(self, piece: Any) -> None:
        """Pieces of one call have one index; some endpoints give every call the same one, with an id of its own."""
        if not isinstance(piece, dict):
            raise bad_reply("its tool calls have a wrong shape")
        piece = dict(piece)
        index, call_id = piece.pop("index", None), piece.get("id")
        for place, call in reversed(self._calls):
            if place == index and (not call_id or call["id"] == call_id):
                _merge(call, piece)
                return
        self._calls.append((index, {"type": "function", "id": "", **piece}))

    def completion(self) -> bytes:
        if not self._is_done and self._finish_reason is None:
            raise TransientError("the model endpoint broke off its stream", kind="connection_cut")
        calls = {"tool_calls": [_joined(call) for _, call in self._calls]} if self._calls else {}
        message = {**_joined(self._message), "content": "".join(self._texts) if self._texts else None, **calls}
        choice = {"index": 0, "finish_reason": self._finish_reason or "stop", "message": message}
        return json.dumps({"object": "chat.completion", **self._about, "choices": [choice]}).encode()


class _Texts(list[str]):
    """A text that comes in pieces: added one by one, each would copy all before it."""


def _merge(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for name, value in piece.items():
        there = whole.get(name)
        if isinstance(value, str) and name not in _WHOLE:
            texts = there if isinstance(there, _Texts) else _Texts([there] if isinstance(there, str) else [])
            texts.append(value)
            whole[name] = texts
        elif isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif value is not None:
            whole[name] = value


def _joined(value: dict[str, Any]) -> dict[str, Any]:
    def whole(item: Any) -> Any:
        return "".join(item) if isinstance(item, _Texts) else _joined(item) if isinstance(item, dict) else item

    return {name: whole(item) for name, item in value.items()}
