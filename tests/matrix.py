"""Every route of both services, for every kind of caller: tests/system/test_matrix.py fails for one without a row here.

`{running}` and `{ended}` are turns of ann. A row has the statuses that ann, another user (bob), an operator and the
sidecar get. A caller who is not signed in gets 401, but for what is open.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from everturn.web.files import DOCS_PATHS
from tests.identity_provider import IdentityProvider, SigningKey

Headers = Mapping[str, str]
ASYNC = {"Prefer": "respond-async"}

MEMORY = {"name": "Ann", "preferred_style": "formal", "user_summary": "Ann lives in Lahore."}
APPROVAL = {"decision": "approve"}
EVENT = {
    "id": "planted",
    "data": {
        "event_type": "ConversationUpdated",
        "user_id": "ann",
        "session_id": "planted",
        "user_message": "a",
        "assistant_reply": "b",
    },
}


@dataclass(frozen=True, eq=False)
class Row:
    """A request, and what each caller gets; `is_open`: those who are not signed in get what all get."""

    route: str
    ann: int
    bob: int
    operator: int
    sidecar: int = 401
    path: str = ""
    body: Any = None
    is_open: bool = False

    @property
    def method(self) -> str:
        return self.route.split(" ")[0]

    def at(self, ids: Mapping[str, str]) -> str:
        return (self.path or self.route.split(" ")[1]).format(**ids)


def opened(*routes: str) -> tuple[Row, ...]:
    return tuple(Row(route, 200, 200, 200, 200, is_open=True) for route in routes)


def of_the_sidecar(route: str, body: Any = None) -> Row:
    return Row(route, 401, 401, 401, 200, body=body)


def steered(how: str, status: int) -> Row:
    return Row(f"POST /turns/{{turn_id}}/{how}", status, 404, status, path=f"/turns/{{running}}/{how}")


COMPLETION = {"messages": [{"role": "user", "content": "Hi"}], "metadata": {"session_id": "of-ann"}}
AGUI = {
    "threadId": "of-ann",
    "runId": "run",
    "messages": [{"id": "m", "role": "user", "content": "Hi"}],
    "forwardedProps": {"user_id": "ann"},
}

OPEN = ("GET /", "GET /healthz", "GET /readyz", "GET /metrics")
CHAT = (
    *opened(*OPEN),
    Row("POST /chat/", 202, 403, 202, body={"user_id": "ann", "text": "Hi"}),
    Row("POST /chat/", 202, 403, 422, body={"text": "Hi", "metadata": {"session_id": "of-ann"}}),
    Row("POST /chat", 202, 403, 202, body={"user_id": "ann", "text": "Hi"}),
    Row("GET /v1/models", 200, 200, 200),
    Row("GET /v1/models/{model}", 200, 200, 200, path="/v1/models/scripted"),
    Row("POST /v1/chat/completions", 200, 403, 403, body=COMPLETION),
    Row("POST /v1/responses", 200, 403, 403, body={"model": "m", "input": "Hi", "conversation": "of-ann"}),
    Row("POST /agui", 200, 403, 200, body=AGUI),
    Row("POST /agui", 200, 403, 403, body={**AGUI, "forwardedProps": {}}),
    Row("GET /turns", 200, 403, 200, path="/turns?user_id=ann"),
    Row("GET /sessions", 200, 403, 200, path="/sessions?user_id=ann"),
    Row("GET /caller", 200, 200, 200),
    Row("GET /memory", 200, 403, 200, path="/memory?user_id=ann"),
    Row("GET /turns/{turn_id}", 200, 404, 200, path="/turns/{running}"),
    Row("GET /turns/{turn_id}", 200, 404, 200, path="/turns/{ended}?include=content"),
    Row("GET /turns/{turn_id}/events", 200, 404, 200, path="/turns/{ended}/events"),
    Row("GET /turns/{turn_id}/recording", 200, 404, 200, path="/turns/{ended}/recording"),
    # No call waits there; that bob's 404 is about the turn is seen below.
    Row("POST /turns/{turn_id}/approvals/{call_id}", 404, 404, 404, path="/turns/{running}/approvals/x", body=APPROVAL),
    steered("pause", 200),
    steered("resume", 200),
    steered("cancel", 200),
    steered("rerun", 409),
)
SERVICE = (
    *opened(*OPEN),
    Row("GET /memories/{user_id}", 200, 403, 200, 200, path="/memories/ann"),
    Row("GET /memories/{user_id}", 403, 403, 200, 200, path="/memories/nobody"),
    Row("POST /memories/{user_id}/initialize", 200, 403, 200, 200, path="/memories/ann/initialize", body=MEMORY),
    # Empty for bob, as an unknown one: seen below.
    Row("GET /conversations/{session_id}", 200, 200, 200, 200, path="/conversations/of-ann"),
    of_the_sidecar("POST /conversations", EVENT),
    of_the_sidecar("POST /conversations/dead-letters", EVENT),
    of_the_sidecar("GET /dapr/subscribe"),
)
# Opened by `everturn up --faults` on the memory service; what they touch is everybody's.
FAULTS = tuple(Row(f"POST /faults/{what}", 403, 403, 200, 200, body={"away": False}) for what in ("memory", "broker"))
# In no document, and nothing of a user; only to be read.
PUBLIC = DOCS_PATHS | {"/openapi.json", "/page/{path:path}"}


def routes_of(app: FastAPI) -> set[str]:
    """Every route of `app` that needs a row; what takes any method (a mounted app, a WebSocket) is an `ANY`."""
    document = app.openapi()["paths"]
    documented = {f"{method.upper()} {path}" for path, methods in document.items() for method in methods}
    found = {
        f"{method} {getattr(route, 'path', route)}"
        for route in app.routes
        for method in getattr(route, "methods", None) or ("ANY",)
    }
    return documented | {route for route in found if not _is_public(*route.split(" ", 1))}


def _is_public(method: str, path: str) -> bool:
    return path in PUBLIC and method in ("GET", "HEAD")


@dataclass(frozen=True)
class Callers:
    """The headers of each kind of caller; `strangers` are not signed in, each in its own way."""

    ann: Headers
    bob: Headers
    operator: Headers
    strangers: Mapping[str, Headers]


def bearer(token: str) -> Headers:
    return {"authorization": f"Bearer {token}"}


def by_proxy(user: str, token: str = "proxy-secret") -> Headers:
    return {"x-everturn-proxy-token": token, "x-forwarded-user": user}


ALIKE: Mapping[str, Headers] = {
    "nobody": {},
    "a wrong operator": bearer("operator-secre"),
    "a wrong sidecar": {"dapr-api-token": "app"},
    "basic credentials": {"authorization": "Basic YW5uOmFubg=="},
    "a name alone": {"x-forwarded-user": "ann"},
}
OPERATOR = bearer("operator-secret")


def callers_by_header() -> Callers:
    strangers = {
        **ALIKE,
        "a wrong proxy": by_proxy("ann", "proxy"),
        "the proxy without a user": {"x-everturn-proxy-token": "proxy-secret"},
        "another name of the header": {"x-everturn-proxy-token": "proxy-secret", "x-user": "ann"},
    }
    return Callers(by_proxy("ann"), by_proxy("bob"), OPERATOR, strangers)


def callers_by_token(provider: IdentityProvider) -> Callers:
    wrong = {
        "an expired token": provider.token(exp=int(time.time()) - 5),
        "a token of another issuer": provider.token(iss="https://id.example/realms/other"),
        "a token for another audience": provider.token(aud="another"),
        "a token of nobody": provider.token(sub=None),
        "a token signed by another": provider.token(key=SigningKey.of_curve()),
        "a broken token": provider.token()[:-9],
        "no token": "x",
    }
    strangers = {name: bearer(token) for name, token in wrong.items()}
    ann, bob = (bearer(provider.token(user)) for user in ("ann", "bob"))
    return Callers(ann, bob, OPERATOR, {**ALIKE, **strangers, "the proxy": by_proxy("ann")})


@dataclass(frozen=True)
class Site:
    """A system whose users sign in; `is_closed`: its memory service has APP_API_TOKEN, and only its health is open.
    `faults`: the rows of its switches, if it has some."""

    chat: httpx2.AsyncClient
    memory: httpx2.AsyncClient
    is_closed: bool = False
    faults: tuple[Row, ...] = ()

    def rows(self) -> Iterator[tuple[httpx2.AsyncClient, Row]]:
        for client, rows in ((self.chat, CHAT), (self.memory, (*SERVICE, *self.faults))):
            for row in rows:
                yield client, row

    def is_open(self, client: httpx2.AsyncClient, row: Row) -> bool:
        is_health = row.route in ("GET /healthz", "GET /readyz")
        return row.is_open and (is_health or not (self.is_closed and client is self.memory))


async def _post(chat: httpx2.AsyncClient, headers: Headers, body: Any) -> dict[str, Any]:
    response = await chat.post("/chat/", json=body, headers=headers)
    assert response.status_code in (200, 202), response.text
    return dict(response.json())


async def ask(client: httpx2.AsyncClient, row: Row, ids: Mapping[str, str], headers: Headers) -> httpx2.Response:
    given = {**ASYNC, **headers}
    if row.body is not None:
        given["content-type"] = "application/json"
    content = None if row.body is None else json.dumps(row.body)
    return await client.request(row.method, row.at(ids), content=content, headers=given)


async def ids_of_ann(site: Site, callers: Callers, endpoint: ModelEndpoint) -> dict[str, str]:
    """An ended turn of ann in her session, and one that runs until it is cancelled."""
    ended = await _post(site.chat, callers.ann, {"text": "Hi", "metadata": {"session_id": "of-ann"}})
    text = f"never ends {uuid.uuid4()}"
    endpoint.script_for(text, Held(asyncio.Event(), completion("never")))
    running = await _post(site.chat, {**callers.ann, **ASYNC}, {"text": text})
    await endpoint.asked(1, text)
    return {"ended": ended["turn_id"], "running": running["turn_id"]}


async def everything_of_ann(site: Site, callers: Callers, ids: Mapping[str, str]) -> dict[str, Any]:
    """What ann sees of hers."""
    paths = [f"/turns/{ids['running']}", f"/turns/{ids['ended']}", "/turns", "/sessions"]
    of_chat = {path: (await site.chat.get(path, headers=callers.ann)).json() for path in paths}
    paths = ["/memories/ann", "/conversations/of-ann", "/conversations/planted"]
    return {**of_chat, **{path: (await site.memory.get(path, headers=callers.ann)).json() for path in paths}}


async def is_stored(site: Site, callers: Callers) -> bool:
    """Whether the memory service has the ended turn."""
    response = await site.memory.get("/conversations/of-ann", headers=callers.ann)
    return len(response.json()["history"]) == 2


async def check_who_may(site: Site, who: str, headers: Headers, ids: Mapping[str, str]) -> None:
    """`who` (ann, operator or sidecar) gets what its column says."""
    seen = {row: (await ask(client, row, ids, headers)).status_code for client, row in site.rows()}

    assert _told(seen) == _told({row: getattr(row, who) for row in seen})


async def check_others(site: Site, callers: Callers, ids: Mapping[str, str]) -> None:
    """Another user, and one who is not signed in, get nothing of ann's, and change nothing of it."""
    before = await everything_of_ann(site, callers, ids)
    for who, headers in {"bob": callers.bob, **callers.strangers}.items():
        seen, expected = {}, {}
        for client, row in site.rows():
            answer = await ask(client, row, ids, headers)
            seen[row] = answer.status_code
            expected[row] = row.bob if who == "bob" or site.is_open(client, row) else 401
            assert "Hi" not in answer.text or row.is_open, (who, row.route)
        assert (who, _told(seen)) == (who, _told(expected))

    assert await everything_of_ann(site, callers, ids) == before
    of_bob = (await site.chat.get("/sessions", headers=callers.bob)).json()["sessions"]
    names = [{session["session_id"] for session in sessions} for sessions in (of_bob, before["/sessions"]["sessions"])]
    assert names[1] >= {"of-ann"}
    assert not names[0] & names[1]


def _told(statuses: Mapping[Row, int]) -> dict[str, int]:
    return {f"{row.route} {row.path} {row.body}": status for row, status in statuses.items()}
