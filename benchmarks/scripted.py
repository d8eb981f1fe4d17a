"""Models that cost nothing: what is measured is Everturn and the Agents SDK."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import ModelResponse, Tool, Usage
from agents.items import TResponseInputItem, TResponseOutputItem
from openai.types.responses import ResponseFunctionToolCall

from everturn.models.offline.model import OfflineModel, message_of
from everturn.models.streaming import OnText

REPLY = "I have noted that you like tea, that you live in Karachi, and that the meeting is on Tuesday at ten. " * 2


# What a model says word by word.
SPOKEN = [word + " " for word in REPLY.split()]


class ScriptedModel(OfflineModel):
    """Gives the same answer of 204 characters to everything, at once."""

    async def respond(
        self,
        instructions: str,  # noqa: ARG002
        items: Sequence[TResponseInputItem],  # noqa: ARG002
        tools: Sequence[Tool],  # noqa: ARG002
    ) -> list[TResponseOutputItem]:
        return [message_of(REPLY)]


class ToolModel(ScriptedModel):
    """Calls a tool as often as the last message begins with a number, one after the other; then it replies."""

    async def respond(
        self, instructions: str, items: Sequence[TResponseInputItem], tools: Sequence[Tool]
    ) -> list[TResponseOutputItem]:
        made = sum(item.get("type") == "function_call_output" for item in items)
        asked = [str(item.get("content")) for item in items if item.get("role") == "user"][-1]
        if not tools or made >= int(asked.split()[0]):
            return await super().respond(instructions, items, tools)
        return [
            ResponseFunctionToolCall(
                type="function_call", call_id=f"call_{made}", name="get_current_time", arguments="{}"
            )
        ]


class SpeakingModel(ScriptedModel):
    """Says its reply word by word, one every `word_s` seconds, if it is asked to stream."""

    def __init__(self, word_s: float) -> None:
        self._word_s = word_s

    async def stream_text(self, on_text: OnText, *_: Any, **__: Any) -> ModelResponse:
        for word in SPOKEN:
            await asyncio.sleep(self._word_s)
            on_text(word)
        return ModelResponse(output=[message_of("".join(SPOKEN))], usage=Usage(requests=1), response_id=None)


class HeldModel(ScriptedModel):
    """Never answers. Each call adds a byte to `calls`, so that another process can count them."""

    def __init__(self, calls: Path) -> None:
        self._calls = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        os.write(self._calls, b".")
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody has is never done")
