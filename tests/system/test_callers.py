"""With users who sign in, what belongs to one is nothing to another, on both services."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from everturn.errors import SettingError
from everturn.memory.app import create_app
from everturn.settings import Settings
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import ASYNC, System, running

EVENT = {
    "id": "e",
    "data": {
        "event_type": "ConversationUpdated",
        "user_id": "ann",
        "session_id": "planted",
        "user_message": "a",
        "assistant_reply": "b",
    },
}
MEMORY = {"name": "Ann", "preferred_style": "formal", "user_summary": "Ann lives in Lahore."}


def signed_in(user: str) -> dict[str, str]:
    return {"x-everturn-proxy-token": "proxy-secret", "x-forwarded-user": user}


OPERATOR = {"authorization": "Bearer operator-secret"}


@pytest.fixture
async def behind_proxy(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> AsyncIterator[System]:
    given: dict[str, Any] = {
        "auth": "header",
        "proxy_token": SecretStr("proxy-secret"),
        "operator_token": SecretStr("operator-secret"),
    }
    async with running(tmp_path, endpoint, clock, **given) as started:
        yield started


async def turn_of(system: System, user: str, session: str = "s") -> str:
    body = {"text": f"I am {user}", "metadata": {"session_id": session}}
    response = await system.chat.post("/chat/", json=body, headers=signed_in(user))
    assert response.status_code == 200, response.text
    assert response.json()["user_id"] == user
    return str(response.json()["turn_id"])


async def statuses(system: System, method: str, paths: list[str], user: str) -> list[int]:
    return [(await system.chat.request(method, path, headers=signed_in(user))).status_code for path in paths]


async def test_a_turn_is_unknown_to_others(behind_proxy: System) -> None:
    turn_id = await turn_of(behind_proxy, "ann")
    steering = [f"/turns/{turn_id}/{how}" for how in ("cancel", "pause", "resume", "rerun")]

    assert await statuses(behind_proxy, "GET", [f"/turns/{turn_id}"], "bob") == [404]
    assert await statuses(behind_proxy, "POST", steering, "bob") == [404] * 4
    assert await statuses(behind_proxy, "GET", [f"/turns/{turn_id}"], "ann") == [200]
    assert await statuses(behind_proxy, "POST", steering, "ann") == [409] * 4
    others = await behind_proxy.chat.get(f"/turns/{turn_id}", headers=signed_in("bob"))
    unknown = await behind_proxy.chat.get("/turns/unknown", headers=signed_in("bob"))
    assert others.json()["detail"].replace(turn_id, "unknown") == unknown.json()["detail"]


async def test_nobody_writes_in_the_name_or_into_the_session_of_another(behind_proxy: System) -> None:
    await turn_of(behind_proxy, "ann", "of-ann")
    named = await behind_proxy.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"}, headers=signed_in("bob"))
    into = {"text": "Hi", "metadata": {"session_id": "of-ann"}}
    entered = await behind_proxy.chat.post("/chat/", json=into, headers=signed_in("bob"))

    assert (named.status_code, entered.status_code) == (403, 403)


async def test_a_key_of_another_user_is_another_key(behind_proxy: System) -> None:
    for user in ("ann", "bob"):
        key = {"Idempotency-Key": "k", **ASYNC}
        response = await behind_proxy.chat.post("/chat/", json={"text": "Hi"}, headers={**signed_in(user), **key})

        assert response.status_code == 202
        assert response.json()["user_id"] == user


async def test_a_conversation_of_another_is_empty_as_an_unknown_one(behind_proxy: System) -> None:
    await turn_of(behind_proxy, "ann")

    async def seen_by(headers: dict[str, str], query: str = "", session: str = "s") -> httpx2.Response:
        return await behind_proxy.memory.get(f"/conversations/{session}{query}", headers=headers)

    async def is_stored() -> bool:
        return bool((await seen_by(signed_in("ann"))).json()["history"])

    await behind_proxy.until(is_stored)

    assert [entry["content"] for entry in (await seen_by(OPERATOR)).json()["history"]] == ["I am ann", "hello"]
    for query in ("", "?window_chars=100", "?user_id=bob", "?user_id=ann&window_chars=0"):
        others, unknown = await seen_by(signed_in("bob"), query), await seen_by(signed_in("bob"), query, "unknown")
        assert (others.status_code, others.content) == (unknown.status_code, unknown.content)
        assert others.json()["history"] == []


async def test_the_memory_of_another_is_refused_whether_there_is_one_or_not(behind_proxy: System) -> None:
    stored = await behind_proxy.memory.post("/memories/ann/initialize", json=MEMORY, headers=signed_in("ann"))
    assert stored.status_code == 200

    refused = [
        (await behind_proxy.memory.get(f"/memories/{user}", headers=signed_in("bob"))).json()
        for user in ("ann", "nobody")
    ]
    written = await behind_proxy.memory.post("/memories/ann/initialize", json=MEMORY, headers=signed_in("bob"))
    own = await behind_proxy.memory.get("/memories/ann", headers=signed_in("ann"))

    assert refused[0] == refused[1]
    assert (refused[0]["status"], written.status_code, own.json()) == (403, 403, MEMORY)


async def test_an_operator_sees_and_steers_what_is_of_any_user(behind_proxy: System) -> None:
    turn_id = await turn_of(behind_proxy, "ann")

    shown = await behind_proxy.chat.get(f"/turns/{turn_id}", headers=OPERATOR)
    steered = await behind_proxy.chat.post(f"/turns/{turn_id}/rerun", headers=OPERATOR)
    unnamed = await behind_proxy.chat.post("/chat/", json={"text": "Hi"}, headers=OPERATOR)
    named = await behind_proxy.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"}, headers=OPERATOR)

    assert (shown.status_code, steered.status_code) == (200, 409)
    assert (unnamed.status_code, named.status_code, named.json()["user_id"]) == (422, 200, "ann")


async def test_the_turns_of_users_have_their_memory(behind_proxy: System) -> None:
    await behind_proxy.memory.post("/memories/ann/initialize", json=MEMORY, headers=signed_in("ann"))
    response = await behind_proxy.chat.post("/chat/", json={"text": "Hi"}, headers=signed_in("ann"))

    assert response.json()["degraded"] == []
    assert "Ann lives in Lahore." in str(behind_proxy.questions()[-1])


async def test_an_event_comes_from_the_sidecar_alone(behind_proxy: System) -> None:
    callers = [{}, signed_in("ann"), OPERATOR, {"dapr-api-token": ""}, behind_proxy.of_the_sidecar]

    codes = [(await behind_proxy.memory.post("/conversations", json=EVENT, headers=who)).status_code for who in callers]

    assert codes == [401, 401, 401, 401, 200]


async def test_where_nobody_signs_in_too_an_event_comes_from_the_sidecar_alone(system: System) -> None:
    foreign = await system.memory.post("/conversations", json=EVENT)
    own = await system.memory.post("/conversations", json=EVENT, headers=system.of_the_sidecar)
    memory = await system.memory.get("/memories/ann")

    assert (foreign.status_code, own.status_code, memory.status_code) == (401, 200, 200)


async def test_each_start_has_a_token_of_its_own(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> None:
    tokens = set()
    for _ in range(2):
        async with running(tmp_path, endpoint, clock) as started:
            tokens.add(started.runtime.options.app_api_token)

    assert len(tokens) == 2


def test_a_memory_service_that_could_not_tell_its_sidecar_from_users_is_refused() -> None:
    settings = Settings(_env_file=None, auth="header", proxy_token=SecretStr("proxy-secret"))

    with pytest.raises(SettingError, match="APP_API_TOKEN"):
        create_app(settings)


async def test_the_page_is_open_and_shows_each_user_their_own_memory(behind_proxy: System) -> None:
    await behind_proxy.memory.post("/memories/ann/initialize", json=MEMORY, headers=signed_in("ann"))
    page = await behind_proxy.chat.get("/", headers={"accept": "text/html"})
    script = await behind_proxy.chat.get("/page/page.js")
    own = await behind_proxy.chat.get("/memory", headers=signed_in("ann"))
    others = await behind_proxy.chat.get("/memory", params={"user_id": "ann"}, headers=signed_in("bob"))
    nobodys = await behind_proxy.chat.get("/memory", params={"user_id": "ann"})

    assert (page.status_code, script.status_code) == (200, 200)
    assert 'data-auth="header"' in page.text
    assert own.json() == {**MEMORY, "user_id": "ann"}
    assert (others.status_code, nobodys.status_code) == (403, 401)
