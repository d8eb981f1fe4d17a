"""The API documents tell what clients need to know, with an example of each shape."""

from typing import Any

import httpx2
import pytest

from tests.system.conftest import System


async def schemas(service: httpx2.AsyncClient) -> dict[str, Any]:
    return dict((await service.get("/openapi.json")).json()["components"]["schemas"])


async def test_the_document_tells_how_long_ids_and_tags_may_be(system: System) -> None:
    message = (await schemas(system.chat))["Message"]["properties"]

    user_id = message["user_id"]["anyOf"][0]
    assert (user_id["minLength"], user_id["maxLength"]) == (1, 256)
    tags = message["tags"]["anyOf"][0]
    assert (tags["maxItems"], tags["items"]["maxLength"]) == (32, 64)


@pytest.mark.parametrize("shape", ["Message", "ChatReply", "Turn"])
async def test_each_shape_of_the_chat_service_has_an_example(system: System, shape: str) -> None:
    assert (await schemas(system.chat))[shape]["examples"]


@pytest.mark.parametrize("shape", ["UserMemory", "ConversationHistory"])
async def test_each_shape_of_the_memory_service_has_an_example(system: System, shape: str) -> None:
    assert (await schemas(system.memory))[shape]["examples"]


async def test_a_text_that_is_too_long_is_told_in_characters(system: System) -> None:
    tagged = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi", "tags": ["x" * 65]})
    named = await system.memory.post(
        "/memories/ann/initialize", json={"name": "x" * 2001, "preferred_style": "", "user_summary": ""}
    )

    assert (tagged.status_code, named.status_code) == (422, 422)
    assert tagged.json()["detail"] == "body.tags.0: string should have at most 64 characters"
    assert named.json()["detail"] == "body.name: string should have at most 2000 characters"
