"""The HTTP front: health, metadata, secrets, invocation, tokens, unknown routes."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from everturn.cli.listeners import WebServer
from everturn.runtime.asgi_front import as_asgi
from everturn.runtime.components import Component, Components
from everturn.runtime.in_process import InProcessTransport
from everturn.sidecar.wire import Request, Response, Transport
from tests.unit.runtime_blocks.conftest import (
    PATIENCE_S,
    OpenRig,
    Rig,
    ScriptedApp,
    served,
    subscription,
    unreachable,
)


def error(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["errorCode"]


async def test_outbound_health_is_204_at_once(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/healthz/outbound"))

    assert response.status == 204


async def test_health_is_204_only_after_the_start(sidecar: Transport, rig: Rig) -> None:
    before = await sidecar.send(Request("GET", "/v1.0/healthz"))
    await rig.start()
    after = await sidecar.send(Request("GET", "/v1.0/healthz"))

    assert error(before) == (500, "ERR_HEALTH_NOT_READY")
    assert after.status == 204


async def test_metadata_names_components_and_subscriptions(sidecar: Transport, rig: Rig) -> None:
    rig.add_app("app-a", ScriptedApp([subscription(deadLetterTopic="dead")]))
    await rig.start("app-a")

    response = await sidecar.send(Request("GET", "/v1.0/metadata"))

    metadata = json.loads(response.body)
    assert metadata["id"] == "app-a"
    assert {item["name"] for item in metadata["components"]} == {"statestore", "pubsub", "secretstore"}
    assert metadata["subscriptions"] == [
        {
            "pubsubname": "pubsub",
            "topic": "orders",
            "rules": [{"path": "/orders"}],
            "deadLetterTopic": "dead",
            "type": "PROGRAMMATIC",
        }
    ]


@pytest.mark.parametrize("target", ["/", "/v1.0/", "/v1.0/nothing", "/v2.0/metadata", "/v1.0/state/statestore/a/b"])
async def test_an_unknown_route_is_404(sidecar: Transport, target: str) -> None:
    response = await sidecar.send(Request("GET", target))

    assert error(response) == (404, "ERR_DIRECT_INVOKE")


async def test_a_wrong_method_is_404(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/publish/pubsub/orders"))

    assert error(response) == (404, "ERR_DIRECT_INVOKE")


async def test_an_invocation_reaches_the_app_as_it_was_sent(sidecar: Transport, rig: Rig) -> None:
    app = ScriptedApp(default=Response(418, {"x-answer": "yes", "content-type": "text/plain"}, b"tea"))
    rig.add_app("app-b", app)

    response = await sidecar.send(
        Request("PUT", "/v1.0/invoke/app-b/method/a%252Fb/c?q=1&q=2", {"x-asked": "1", "host": "sidecar"}, b"body")
    )

    (request,) = app.received
    assert (request.method, request.target, request.body) == ("PUT", "/a%2Fb/c?q=1&q=2", b"body")
    assert request.headers["x-asked"] == "1"
    assert request.headers["dapr-caller-app-id"] == "app-a"
    assert "host" not in request.headers
    assert (response.status, response.body) == (418, b"tea")
    assert (response.headers["x-answer"], response.headers["content-type"]) == ("yes", "text/plain")


async def test_an_invocation_by_header_reaches_the_app(sidecar: Transport, rig: Rig) -> None:
    app = ScriptedApp()
    rig.add_app("app-b", app)

    response = await sidecar.send(Request("GET", "/hello?x=1", {"dapr-app-id": "app-b"}))

    (request,) = app.received
    assert response.status == 200
    assert request.target == "/hello?x=1"
    assert "dapr-app-id" not in request.headers


async def test_an_invocation_shows_the_app_its_token_and_never_the_sidecars(rig: Rig) -> None:
    app = ScriptedApp()
    rig.add_app("app-b", app, token="of-the-app")
    front = rig.front(api_token="of-the-sidecar")

    await front.handle(Request("GET", "/v1.0/invoke/app-b/method/x", {"dapr-api-token": "of-the-sidecar"}))

    assert app.received[0].headers["dapr-api-token"] == "of-the-app"


async def test_without_an_app_token_the_callers_token_is_not_passed_on(rig: Rig) -> None:
    app = ScriptedApp()
    rig.add_app("app-b", app)

    await rig.front().handle(Request("GET", "/v1.0/invoke/app-b/method/x", {"dapr-api-token": "secret"}))

    assert "dapr-api-token" not in app.received[0].headers


async def test_invoking_a_path_that_cannot_be_handed_on_is_500(sidecar: Transport, rig: Rig) -> None:
    rig.add_app("app-b", ScriptedApp())

    response = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/a%3Fb"))

    assert error(response) == (500, "ERR_DIRECT_INVOKE")


async def test_invoking_an_unknown_app_is_500(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/invoke/nobody/method/x"))

    assert error(response) == (500, "ERR_DIRECT_INVOKE")
    assert "no host found with the given ID" in json.loads(response.body)["message"]


async def test_invoking_an_app_that_is_down_is_500(sidecar: Transport, rig: Rig) -> None:
    rig.add_app("app-b", ScriptedApp(default=unreachable()))

    response = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert error(response) == (500, "ERR_DIRECT_INVOKE")


async def test_invoking_an_app_that_was_taken_away_is_500_until_it_is_back(sidecar: Transport, rig: Rig) -> None:
    app = ScriptedApp()
    channel = rig.add_app("app-b", app)

    channel.away = True
    away = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/x"))
    channel.away = False
    back = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert error(away) == (500, "ERR_DIRECT_INVOKE")
    assert back.status == 200
    assert len(app.received) == 1


async def test_a_caller_without_the_token_is_refused(rig: Rig) -> None:
    async with served(rig.front(api_token="secret")) as stranger:
        response = await stranger.send(Request("GET", "/v1.0/state/statestore/k"))
        wrong = await stranger.send(Request("GET", "/v1.0/state/statestore/k", {"dapr-api-token": "secret2"}))
        health = await stranger.send(Request("GET", "/v1.0/healthz/outbound"))

    assert (response.status, wrong.status, health.status) == (401, 401, 204)


async def test_a_caller_with_the_token_is_let_in(rig: Rig) -> None:
    async with served(rig.front(api_token="secret"), **{"dapr-api-token": "secret"}) as known:
        response = await known.send(Request("GET", "/v1.0/state/statestore/k"))

    assert response.status == 204


async def test_a_caller_in_the_process_needs_no_token(rig: Rig) -> None:
    response = await InProcessTransport(rig.front(api_token="secret")).send(Request("GET", "/v1.0/metadata"))

    assert response.status == 200


async def test_a_body_over_the_limit_is_413_on_a_socket(rig: Rig) -> None:
    async with served(rig.front()) as transport:
        response = await transport.send(Request("POST", "/v1.0/state/statestore", {}, b" " * (4 * 1024 * 1024 + 1)))

    assert response.status == 413


async def test_a_body_that_stops_half_way_is_408_and_the_end_of_the_connection(rig: Rig) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = WebServer(as_asgi(rig.front(), body_timeout_s=0.001), listener)
    server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"POST /v1.0/state/statestore HTTP/1.1\r\nhost: sidecar\r\ncontent-length: 9\r\n\r\n[{")

    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()

    writer.close()
    await server.stop(0)
    assert answer.split()[1] == b"408"


async def test_a_secret_of_the_environment_is_given(sidecar: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "s3cret")

    response = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/MODEL_KEY"))

    assert json.loads(response.body) == {"MODEL_KEY": "s3cret"}


@pytest.mark.parametrize("name", ["APP_API_TOKEN", "DAPR_API_TOKEN", "dapr_api_token"])
async def test_the_runtimes_own_tokens_are_no_secrets(
    sidecar: Transport, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "s3cret")

    one = await sidecar.send(Request("GET", f"/v1.0/secrets/secretstore/{name}"))
    every = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert json.loads(one.body) == {name: ""}
    assert name not in json.loads(every.body)


async def test_all_secrets_of_the_environment_are_given_in_bulk(
    sidecar: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "s3cret")

    response = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert json.loads(response.body)["MODEL_KEY"] == {"MODEL_KEY": "s3cret"}


def file_store(path: Path, **metadata: str) -> Components:
    content = {"plain": "a", "redis": {"host": "h", "ports": [1, 2]}}
    path.write_text(json.dumps(content), "utf-8")
    store = Component("files", "secretstores.local.file", metadata={"secretsFile": str(path), **metadata})
    return Components({"files": store})


async def test_nested_secrets_of_a_file_are_joined_by_colons(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json"))

    nested = await rig.front().handle(Request("GET", "/v1.0/secrets/files/redis%3Aports%3A1"))
    every = await rig.front().handle(Request("GET", "/v1.0/secrets/files/bulk"))

    assert json.loads(nested.body) == {"redis:ports:1": "2"}
    assert set(json.loads(every.body)) == {"plain", "redis:host", "redis:ports:0", "redis:ports:1"}


async def test_a_multi_valued_file_has_secrets_of_several_keys(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json", multiValued="true"))

    nested = await rig.front().handle(Request("GET", "/v1.0/secrets/files/redis"))
    plain = await rig.front().handle(Request("GET", "/v1.0/secrets/files/plain"))

    assert json.loads(nested.body) == {"host": "h", "ports:0": "1", "ports:1": "2"}
    assert json.loads(plain.body) == {"plain": "a"}


async def test_a_secret_that_a_file_does_not_have_is_an_error(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json"))

    response = await rig.front().handle(Request("GET", "/v1.0/secrets/files/nothing"))

    assert error(response) == (500, "ERR_SECRET_GET")


async def test_an_unknown_secret_store_is_401_as_on_dapr(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/secrets/other/x"))

    assert error(response) == (401, "ERR_SECRET_STORE_NOT_FOUND")


async def test_without_any_secret_store_it_is_500(open_rig: OpenRig) -> None:
    rig = await open_rig(Components({}))

    response = await rig.front().handle(Request("GET", "/v1.0/secrets/other/x"))

    assert error(response) == (500, "ERR_SECRET_STORES_NOT_CONFIGURED")
