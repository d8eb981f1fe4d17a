"""The HTTP API on a socket: bodies that are too long or too late."""

import asyncio
import json
import socket

import pytest

from everturn.cli.process import WebServer
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request, Response
from everturn.runtime.http.asgi import as_asgi
from tests.unit.runtime.conftest import (
    PATIENCE_S,
    Rig,
    served,
)


async def test_a_body_over_the_limit_is_413_on_a_socket(rig: Rig) -> None:
    async with served(rig.api()) as transport:
        response = await transport.send(Request("POST", "/v1.0/state/statestore", {}, b" " * (4 * 1024 * 1024 + 1)))

    assert response.status == 413


async def test_a_body_that_stops_half_way_is_408_and_the_end_of_the_connection(rig: Rig) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = WebServer(as_asgi(rig.api().handle, body_timeout_s=0.001), listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"POST /v1.0/state/statestore HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n[{")

    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()

    writer.close()
    await server.stop(0)
    assert answer.split()[1] == b"408"


async def broken(_: Request) -> Response:
    """Has a fault of its own."""
    raise KeyError("canary")


async def test_what_nobody_expected_is_500_in_daprs_json_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = WebServer(as_asgi(broken), listener)
    transport = HttpTransport("http://{}:{}".format(*listener.getsockname()))

    response = await transport.send(Request("GET", "/v1.0/metadata"))

    await transport.close()
    await server.stop(0)
    assert (response.status, response.headers["content-type"]) == (500, "application/json")
    assert json.loads(response.body) == {
        "errorCode": "ERR_INTERNAL",
        "message": "the runtime failed; its log says where",
    }
    assert [record.message for record in caplog.records if record.name.startswith("everturn")] == ["request_failed"]


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}])
async def test_a_foreign_page_is_403_but_health_is_told(rig: Rig, headers: dict[str, str]) -> None:
    async with served(rig.api()) as transport:
        refused = await transport.send(Request("GET", "/v1.0/metadata", headers))
        health = await transport.send(Request("GET", "/v1.0/healthz/outbound", headers))

    assert (refused.status, refused.headers["content-type"]) == (403, "application/problem+json")
    assert json.loads(refused.body)["errorCode"] == "ERR_PERMISSION_DENIED"
    assert health.status == 204


async def test_another_apps_health_is_not_told_to_a_foreign_page(rig: Rig) -> None:
    headers = {"origin": "https://evil.example", "dapr-app-id": "app-b"}

    async with served(rig.api()) as transport:
        response = await transport.send(Request("GET", "/v1.0/healthz", headers))

    assert response.status == 403


async def test_two_hosts_are_400(rig: Rig) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = WebServer(as_asgi(rig.api().handle), listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET /v1.0/healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n")

    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()

    writer.close()
    await server.stop(0)
    assert answer.split()[1] == b"400"
