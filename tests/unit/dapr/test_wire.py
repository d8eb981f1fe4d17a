"""Calling an ASGI app in the process."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as AppRequest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from everturn.dapr.wire import AsgiTransport, Request, Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def show(request: AppRequest) -> JSONResponse:
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["path"],
            "raw_path": request.scope["raw_path"].decode(),
            "query": dict(request.query_params),
            "header": request.headers.get("x-mine"),
            "length": request.headers.get("content-length"),
            "body": (await request.body()).decode(),
        },
        status_code=201,
        headers={"X-Answer": "yes"},
    )


async def stream(_: AppRequest) -> StreamingResponse:
    async def chunks() -> Any:
        for part in (b"a", b"", b"b"):
            yield part

    return StreamingResponse(chunks())


async def fail(_: AppRequest) -> JSONResponse:
    raise RuntimeError("a fault of the app")


APP = Starlette(
    routes=[
        Route("/show/{rest:path}", show, methods=["GET", "POST"]),
        Route("/stream", stream),
        Route("/fail", fail),
    ]
)


async def ask(request: Request) -> Response:
    return await AsgiTransport(APP).send(request)


async def test_the_app_sees_the_request_as_it_was_sent() -> None:
    response = await ask(Request("POST", "/show/a%2Fb%0A?q=1%202", {"x-mine": "m"}, b"body"))

    assert json.loads(response.body) == {
        "method": "POST",
        "path": "/show/a/b\n",
        "raw_path": "/show/a%2Fb%0A",
        "query": {"q": "1 2"},
        "header": "m",
        "length": "4",
        "body": "body",
    }


async def test_status_and_headers_come_back_with_names_in_lower_case() -> None:
    response = await ask(Request("GET", "/show/"))

    assert response.status == 201
    assert response.headers["x-answer"] == "yes"


async def test_a_streamed_body_comes_back_whole() -> None:
    assert (await ask(Request("GET", "/stream"))).body == b"ab"


async def test_what_the_app_raises_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    response = await ask(Request("GET", "/fail"))

    assert response.status == 500
    assert "app_raised" in [record.message for record in caplog.records]


async def test_an_app_that_gives_no_whole_response_is_a_500() -> None:
    async def half(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert (await AsgiTransport(half).send(Request("GET", "/"))).status == 500


async def test_a_repeated_header_is_one_list() -> None:
    async def twice(_scope: Message, _receive: Receive, send: Send) -> None:
        headers = [(b"Vary", b"a"), (b"vary", b"b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert (await AsgiTransport(twice).send(Request("GET", "/"))).headers["vary"] == "a, b"
