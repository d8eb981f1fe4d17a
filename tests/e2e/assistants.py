"""An assistant over the real client, asking an endpoint on a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from everturn.chat.assistant.agent import Assistant
from everturn.contracts.memory import UserMemory
from everturn.errors import TerminalError, TransientError
from everturn.models.providers import build_model
from everturn.settings import Settings
from everturn.testing.model_answers import (
    Answer,
)
from everturn.testing.model_endpoint import ModelEndpoint

MEMORY = UserMemory(name="Junaid", preferred_style="casual", user_summary="Junaid lives in Karachi.")
KEY = "canary-key-4711"
PROMPT = "canary-prompt-4711"


def settings_for(base_url: str, *, name: str = "scripted", key: str | None = KEY, timeout_s: float = 30) -> Settings:
    return Settings.model_validate(
        {"model_base_url": base_url, "model_name": name, "model_api_key": key, "generate_timeout_s": timeout_s}
    )


@asynccontextmanager
async def assistant_at(base_url: str, **given: Any) -> AsyncIterator[Assistant]:
    model = build_model(settings_for(base_url, **given), "chat")
    try:
        yield Assistant(model)
    finally:
        await model.close()


async def reply_to(*script: Answer, name: str = "scripted") -> str:
    async with ModelEndpoint(*script) as endpoint, assistant_at(endpoint.base_url, name=name) as assistant:
        return await assistant.reply(MEMORY, [], PROMPT)


async def transient(*script: Answer) -> TransientError:
    with pytest.raises(TransientError) as caught:
        await reply_to(*script)
    return caught.value


async def terminal(*script: Answer) -> TerminalError:
    with pytest.raises(TerminalError) as caught:
        await reply_to(*script)
    return caught.value
