"""Models that cost nothing: what is measured is Everturn and the Agents SDK."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import ModelResponse, Tool
from agents.items import TResponseInputItem, TResponseOutputItem

from everturn.models.offline.model import OfflineModel, message_of

REPLY = "I have noted that you like tea, that you live in Karachi, and that the meeting is on Tuesday at ten. " * 2


class ScriptedModel(OfflineModel):
    """Gives the same answer of 204 characters to everything, at once."""

    def respond(
        self,
        instructions: str,  # noqa: ARG002
        items: Sequence[TResponseInputItem],  # noqa: ARG002
        tools: Sequence[Tool],  # noqa: ARG002
    ) -> list[TResponseOutputItem]:
        return [message_of(REPLY)]


class HeldModel(ScriptedModel):
    """Never answers. Each call adds a byte to `calls`, so that another process can count them."""

    def __init__(self, calls: Path) -> None:
        self._calls = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        os.write(self._calls, b".")
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody has is never done")
