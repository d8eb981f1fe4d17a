"""Keys are in nothing that is written or answered, whatever goes wrong; what people say is in no log."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest

from everturn import logs
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Answer, Whole, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider, SigningKey
from tests.system.conftest import running

KEYS = {
    "GEMINI_API_KEY": "canary-gemini-4711",
    "DAPR_API_TOKEN": "canary-dapr-4711",
    "APP_API_TOKEN": "canary-app-4711",
    "REDIS_PASSWORD": "canary-redis-4711",
}
MODEL_KEY = "canary-model-4711"
TEXT = "canary-message-4711"
JSON = {"content-type": "application/json"}
# Where the model's key comes from: by the variable that holds it.
SOURCES: dict[str, dict[str, str]] = {
    "EVERTURN_MODEL_API_KEY": {},
    "LLAMA_KEY": {"EVERTURN_MODEL_API_KEY_SECRET": "LLAMA_KEY"},
}


def telling_the_key(status: int) -> Whole:
    """An answer of an endpoint that repeats the key that it was shown, and the message."""
    told = f"no: Bearer {MODEL_KEY} asks {TEXT}"
    body = f'{{"error": {{"message": "{told}", "code": "{MODEL_KEY}"}}}}'
    return Whole(body.encode(), status, {"x-told": told, "www-authenticate": told})


def script(endpoint: ModelEndpoint) -> None:
    garbage: list[Answer] = [Whole(f"garbage {MODEL_KEY} {TEXT}".encode())] * 2
    endpoint.script_for("unauthorised", telling_the_key(401))
    endpoint.script_for("in error", telling_the_key(400))
    endpoint.script_for("in trouble", telling_the_key(500), telling_the_key(500))
    endpoint.script_for("in garbage", *garbage)


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        script(started)
        yield started


def all_of(response: httpx2.Response) -> str:
    return f"{response.headers} {response.text}"


async def turns(chat: httpx2.AsyncClient, session: str) -> list[httpx2.Response]:
    """A good turn, turns that fail in four ways, refused requests, and what can be asked about all of them."""

    async def say(what: str, **how: Any) -> httpx2.Response:
        body = {"user_id": "ann", "text": f"{TEXT} {what}", "metadata": {"session_id": session}}
        return await chat.post("/chat/", json=body | how, headers={"idempotency-key": f"{session} {what}"})

    heard = [await say(what) for what in ("well", "unauthorised", "in error", "in trouble", "in garbage")]
    assert [response.status_code for response in heard] == [200, 502, 502, 502, 502]
    for response in list(heard):
        turn_id = response.json()["turn_id"]
        heard += [await chat.get(f"/turns/{turn_id}"), await chat.post(f"/turns/{turn_id}/cancel")]
    heard += [
        await say("well", tags=["another body"]),
        await say("well", user_id="eve"),
        await say("well", tags="no list"),
        await say("x" * 40_000),
        await chat.post("/chat/", content=f'{{"text": "{TEXT}'.encode(), headers=JSON),
        await chat.post("/chat/", content=TEXT.encode(), headers={"content-type": "text/plain"}),
    ]
    return heard + [
        await chat.get(path) for path in ("/turns/none", "/nowhere", "/metrics", "/readyz", "/openapi.json")
    ]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", SOURCES)
async def test_no_key_is_in_anything_that_a_process_writes_or_answers(
    machine: Machine, client: Client, endpoint: ModelEndpoint, source: str
) -> None:
    keys = {**KEYS, source: MODEL_KEY}
    limits = {"EVERTURN_GENERATE_ATTEMPTS": "2", "EVERTURN_GENERATE_FIRST_DELAY_S": "0.01"}
    place = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
    process = await machine.up(**keys, **SOURCES[source], **place, **limits)
    client.http.base_url = machine.chat_url

    heard = await turns(client.http, "s")
    memory, token = machine.memory_url, {"dapr-api-token": KEYS["APP_API_TOKEN"]}
    for path in ("/memories/ann", "/conversations/s", "/metrics", "/readyz", "/nowhere"):
        heard += [await client.http.get(memory + path, headers=given) for given in ({}, token, {"dapr-api-token": "x"})]
    heard.append(await client.http.post(f"{memory}/conversations", json={"data": TEXT}, headers=token))
    # So that the database's log of writes stays where it is.
    await process.kill()

    files, told = files_of(machine.folder), [*process.out.all, *process.err.all]
    assert all(request.headers["authorization"] == f"Bearer {MODEL_KEY}" for request in endpoint.requests)
    assert [path.name for path, content in files.items() if TEXT.encode() in content], "the search finds nothing"
    assert any("step_attempt_failed" in line for line in told)
    for name, value in keys.items():
        assert [path for path, content in files.items() if value.encode() in content] == [], name
        assert [line for line in told if value in line] == [], name
        assert [response.url for response in heard if value in all_of(response)] == [], name
    assert [line for line in told if TEXT in line] == []


@pytest.mark.parametrize("json", [True, False])
async def test_at_debug_level_no_log_has_a_key_or_a_message(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, json: bool
) -> None:
    stream = io.StringIO()
    logs.configure(json, stream=stream)
    for name in (None, "everturn", "openai", "openai.agents", "httpx2", "dapr", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)

    async with running(tmp_path, endpoint, clock, generate_attempts=1, model_api_key=MODEL_KEY) as system:
        heard = await turns(system.chat, "s")
        await system.history_of(2)
        heard.append(await system.memory.post("/conversations", json={"data": TEXT}, headers=system.of_the_sidecar))

    assert "step_attempt_failed" in stream.getvalue()
    assert MODEL_KEY not in stream.getvalue()
    assert TEXT not in stream.getvalue()
    assert [response.url for response in heard if MODEL_KEY in all_of(response)] == []


PROXY, OPERATOR, CLAIM = "canary-proxy-4711", "canary-operator-4711", "canary-claim-4711"


def credentials(provider: IdentityProvider) -> list[dict[str, str]]:
    """Good ones, and such as are refused in each way."""
    claims: dict[str, Any] = {"email": CLAIM, "nonce": CLAIM}
    tokens = [
        provider.token("ann", **claims),
        provider.token("ann", exp=1, **claims),
        provider.token("ann", iss=CLAIM, **claims),
        provider.token("ann", aud=CLAIM, **claims),
        provider.token(CLAIM * 99, **claims),
        provider.token("ann", key=SigningKey.of_curve(CLAIM), **claims),
        provider.token("ann", **claims)[:-9],
        OPERATOR,
        f"{OPERATOR}-and-more",
    ]
    proxies = [PROXY, f"{PROXY}-and-more"]
    return [{"authorization": f"Bearer {token}"} for token in tokens] + [
        {"x-everturn-proxy-token": token, "x-forwarded-user": user} for token in proxies for user in ("ann", CLAIM * 99)
    ]


@pytest.mark.parametrize("auth", ["header", "jwt"])
async def test_at_debug_level_no_log_file_or_answer_has_a_token_or_a_claim(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, auth: Literal["header", "jwt"]
) -> None:
    stream, provider, keys = io.StringIO(), IdentityProvider(), tmp_path / "jwks.json"
    logs.configure(True, stream=stream)
    for name in (None, "everturn", "httpx2", "jwt", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    await asyncio.to_thread(keys.write_bytes, provider.jwks())
    by_token: dict[str, Any] = {"jwt_jwks": str(keys), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    secrets: dict[str, Any] = {"proxy_token": PROXY, "operator_token": OPERATOR}

    heard = []
    async with running(tmp_path / "data", endpoint, clock, auth=auth, **by_token, **secrets) as system:
        given = credentials(provider)
        for headers in given:
            heard.append(await system.chat.post("/chat/", json={"user_id": "ann", "text": TEXT}, headers=headers))
            heard += [await system.chat.get(path, headers=headers) for path in ("/turns", "/turns/none", "/nowhere")]
            heard.append(await system.memory.get("/memories/ann", headers=headers))

    assert {response.status_code for response in heard} >= {200, 401, 404}
    assert auth == "header" or "token_refused" in stream.getvalue()
    canaries = [CLAIM, PROXY, OPERATOR, *(value.removeprefix("Bearer ") for each in given for value in each.values())]
    for canary in canaries:
        if canary != "ann":
            assert canary not in stream.getvalue()
            assert [path for path, content in files_of(tmp_path / "data").items() if canary.encode() in content] == []
            assert [response.url for response in heard if canary in all_of(response)] == []
