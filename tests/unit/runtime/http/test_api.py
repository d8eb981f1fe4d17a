"""The HTTP API: health, metadata, invocation, tokens, unknown routes."""

import json

import pytest

from everturn.dapr.wire import Request, Response, Transport
from tests.unit.runtime.conftest import (
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


@pytest.mark.parametrize(
    "target",
    ["/", "/v1.0/", "/v1.0/nothing", "/v2.0/metadata", "/v1.0/state/statestore/a/b", "/v1.0/publish/pubsub/orders"],
)
async def test_an_unknown_route_and_a_wrong_method_are_404(sidecar: Transport, target: str) -> None:
    response = await sidecar.send(Request("GET", target))

    assert error(response) == (404, "ERR_DIRECT_INVOKE")


async def test_an_invocation_reaches_the_app_as_it_was_sent(sidecar: Transport, rig: Rig) -> None:
    app = ScriptedApp(default=Response(418, {"x-answer": "yes", "content-type": "text/plain"}, b"tea"))
    rig.add_app("app-b", app)

    response = await sidecar.send(
        Request("PUT", "/v1.0/invoke/app-b/method/a%252Fb/c?q=1&q=2", {"x-asked": "1", "host": "localhost"}, b"body")
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
    api = rig.api(api_token="of-the-sidecar")

    await api.handle(Request("GET", "/v1.0/invoke/app-b/method/x", {"dapr-api-token": "of-the-sidecar"}))

    assert app.received[0].headers["dapr-api-token"] == "of-the-app"


async def test_without_an_app_token_the_callers_token_is_not_passed_on(rig: Rig) -> None:
    app = ScriptedApp()
    rig.add_app("app-b", app)

    await rig.api().handle(Request("GET", "/v1.0/invoke/app-b/method/x", {"dapr-api-token": "secret"}))

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
    rig.add_app("app-b", app)

    app.away = True
    away = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/x"))
    app.away = False
    back = await sidecar.send(Request("GET", "/v1.0/invoke/app-b/method/x"))

    assert error(away) == (500, "ERR_DIRECT_INVOKE")
    assert back.status == 200
    assert len(app.received) == 1


async def test_a_caller_without_the_token_is_refused(rig: Rig) -> None:
    async with served(rig.api(api_token="secret")) as stranger:
        response = await stranger.send(Request("GET", "/v1.0/state/statestore/k"))
        wrong = await stranger.send(Request("GET", "/v1.0/state/statestore/k", {"dapr-api-token": "secret2"}))
        health = await stranger.send(Request("GET", "/v1.0/healthz/outbound"))

    assert (response.status, wrong.status, health.status) == (401, 401, 204)


async def test_a_caller_with_the_token_is_let_in(rig: Rig) -> None:
    async with served(rig.api(api_token="secret"), **{"dapr-api-token": "secret"}) as known:
        response = await known.send(Request("GET", "/v1.0/state/statestore/k"))

    assert response.status == 204


async def test_a_caller_in_the_process_needs_no_token(rig: Rig) -> None:
    response = await rig.api(api_token="secret").send(Request("GET", "/v1.0/metadata"))

    assert response.status == 200
