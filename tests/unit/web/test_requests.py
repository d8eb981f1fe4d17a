import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from everturn.errors import TransientError
from everturn.web.requests import (
    MAX_BODY_BYTES,
    BodyLimit,
    Preferences,
    Settled,
    encoded_id,
    header_text,
    preferences_of,
)
from tests.unit.web.conftest import JSON, LARGE_LIMIT, Probe

pytestmark = pytest.mark.asyncio(loop_scope="session")

IDS = [
    "a",
    "a/b",
    "/",
    "//",
    "dead-letters",
    "x/cancel",
    "..",
    ".",
    "%2F",
    "%252F",
    "ü ß",
    "a?b#c",
    "😀",
    "\u00e9",
    "e\u0301",
    "a+b",
]


@pytest.mark.parametrize("thing_id", IDS)
async def test_any_id_works_in_a_path(client: httpx2.AsyncClient, thing_id: str) -> None:
    response = await client.get(f"/things/{_sent(thing_id)}")

    assert response.json() == {"id": thing_id}


@pytest.mark.parametrize("thing_id", [*IDS, "x/cancel/cancel"])
async def test_any_id_works_before_another_segment(client: httpx2.AsyncClient, thing_id: str) -> None:
    response = await client.post(f"/things/{_sent(thing_id)}/cancel")

    assert response.json() == {"cancelled": thing_id}


@pytest.mark.parametrize("encoded", ["a%0A", "%0A", "%20", "%00", "%E2%80%8B", "%FF", "a" * 257])
async def test_a_bad_id_is_refused(client: httpx2.AsyncClient, encoded: str) -> None:
    response = await client.get(f"/things/{encoded}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "path.thing_id"


async def test_an_id_of_256_characters_that_are_four_bytes_each_works(client: httpx2.AsyncClient) -> None:
    response = await client.get(f"/things/{encoded_id('😀' * 256)}")

    assert response.json() == {"id": "😀" * 256}


async def test_an_id_that_is_missing_is_no_route(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/things/")).status_code == 404


async def test_a_slash_that_is_not_encoded_separates(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/things/a/b")).status_code == 404


async def test_a_needlessly_encoded_path_is_the_same_path(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/th%69ngs/a")).json() == {"id": "a"}


async def test_a_server_that_gives_no_raw_path_is_served_too(probe: Probe) -> None:
    without_raw_path = _without_raw_path(probe.build())

    async with httpx2.AsyncClient(transport=without_raw_path, base_url="http://localhost") as client:
        response = await client.get("/things/%C3%BC%20x")

    assert response.json() == {"id": "ü x"}


def _sent(thing_id: str) -> str:
    # A client would take dot segments out of the URL.
    return encoded_id(thing_id).replace(".", "%2E")


def _without_raw_path(app: FastAPI) -> httpx2.ASGITransport:
    async def stripped(scope: dict[str, object], receive: object, send: object) -> None:
        await app({key: value for key, value in scope.items() if key != "raw_path"}, receive, send)  # type: ignore[arg-type]

    return httpx2.ASGITransport(app=stripped)  # type: ignore[arg-type]


@pytest.mark.parametrize("meant", ["plain", "schlüssel", "鍵", "🔑", ""])
async def test_what_was_sent_as_utf_8_is_read_as_utf_8(meant: str) -> None:
    assert header_text(meant.encode().decode("latin-1")) == meant


async def test_what_is_no_utf_8_stays_what_it_is() -> None:
    assert header_text("schl\xfcssel") == "schl\xfcssel"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Preferences()),
        (["respond-async"], Preferences(respond_async=True)),
        (["Respond-Async, wait=10"], Preferences(respond_async=True, wait_s=10)),
        (["respond-async", "wait = 5"], Preferences(respond_async=True, wait_s=5)),
        (['wait="7"; a=b'], Preferences(wait_s=7)),
        (["wait=3, wait=9"], Preferences(wait_s=3)),
        (["wait=0"], Preferences(wait_s=0)),
    ],
)
async def test_preferences_are_read(header: list[str] | None, expected: Preferences) -> None:
    assert await preferences_of(header) == expected


@pytest.mark.parametrize("header", ["wait=soon", "wait=-1", "wait", "return=minimal", ",,;", "wait=\u0663"])
async def test_what_cannot_be_read_is_ignored(header: str) -> None:
    assert await preferences_of([header]) == Preferences()


BROKEN = {
    "no JSON": b"{",
    "invalid UTF-8": b'{"text":"\xff"}',
    "a lone surrogate": b'{"text":"\\ud800"}',
    "an encoded surrogate": b'{"text":"\xed\xa0\x80"}',
    "NUL": b'{"text":"a\\u0000b"}',
    "NaN": b'{"text":"a","unknown":NaN}',
    "UTF-16": '{"text":"a"}'.encode("utf-16"),
    "deep nesting": b'{"text":' + b"[" * 200_000,
    "deep and closed": b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "another shape": b"[]",
    "nothing": b"",
    "null": b"null",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_is_no_note_is_422(client: httpx2.AsyncClient, body: bytes) -> None:
    response = await client.post("/notes", content=body, headers=JSON)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *(
            {"content-type": sent}
            for sent in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "", "json")
        ),
        {"content-type": "text/plain; application/json"},
    ],
)
async def test_a_body_that_is_not_called_json_is_422_and_names_the_header(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/notes", content=b'{"text":"a"}', headers=headers)

    assert response.status_code == 422
    assert response.json()["detail"] == "content-type: must be application/json"
    assert response.json()["errors"] == [{"field": "content-type", "message": "must be application/json"}]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON ;charset=utf-8", "application/cloudevents+json"],
)
async def test_every_kind_of_json_is_read(client: httpx2.AsyncClient, content_type: str) -> None:
    response = await client.post("/notes", content=b'{"text":"a"}', headers={"content-type": content_type})

    assert response.json() == {"text": "a", "stars": 0}


async def test_text_is_kept_exactly(client: httpx2.AsyncClient) -> None:
    text = " \t\r\n é é 😀 \u2028 </script> "

    assert (await client.post("/notes", json={"text": text})).json()["text"] == text


def note_of(size: int) -> bytes:
    empty = b'{"text":""}'
    return b'{"text":"' + b"x" * (size - len(empty)) + b'"}'


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


async def test_a_body_of_one_mebibyte_is_read(client: httpx2.AsyncClient) -> None:
    response = await client.post("/notes", content=note_of(MAX_BODY_BYTES), headers=JSON)

    assert response.status_code == 200


@pytest.mark.parametrize("sent", [bytes, in_chunks], ids=["announced", "of unknown length"])
async def test_a_body_over_one_mebibyte_is_413(
    client: httpx2.AsyncClient, sent: Callable[[bytes], bytes | AsyncIterator[bytes]]
) -> None:
    response = await client.post("/notes", content=sent(note_of(MAX_BODY_BYTES + 1)), headers=JSON)

    assert response.status_code == response.json()["status"] == 413
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_announced_body_that_is_too_large_is_refused_before_it_is_sent(client: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(b"POST /notes HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))

    async with asyncio.timeout(20):
        status = await reader.readline()

    writer.close()
    assert status.split()[1] == b"413"


async def test_a_route_can_take_more(client: httpx2.AsyncClient) -> None:
    taken = await client.post("/large", content=in_chunks(note_of(LARGE_LIMIT)), headers=JSON)
    refused = await client.post("/large", content=in_chunks(note_of(LARGE_LIMIT + 1)), headers=JSON)

    assert (taken.status_code, refused.status_code) == (200, 413)


@pytest.mark.parametrize("sent", [b"", b'{"te'])
@pytest.mark.parametrize("head", [b"content-length: 12", b"transfer-encoding: chunked"])
async def test_a_body_that_does_not_come_is_408_and_the_end_of_the_connection(
    hasty_client: httpx2.AsyncClient, head: bytes, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection(hasty_client.base_url.host, hasty_client.base_url.port)
    chunk = b"%x\r\n%s\r\n" % (len(sent), sent) if sent and b"chunked" in head else sent
    writer.write(
        b"POST /notes HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n%s\r\n\r\n%s" % (head, chunk)
    )

    async with asyncio.timeout(20):
        answer = await reader.read()

    writer.close()
    assert answer.split()[1] == b"408"
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer.lower()


async def test_a_client_that_has_sent_its_body_may_wait_as_long_as_it_takes() -> None:
    events = iter([{"type": "http.request", "body": b"{}", "more_body": False}])
    left = asyncio.Event()

    async def receive() -> Message:
        for event in events:
            return event
        await left.wait()
        return {"type": "http.disconnect"}

    async def app(_scope: Scope, given: Receive, _send: Send) -> None:
        await given()
        waiting = asyncio.ensure_future(given())
        asyncio.get_running_loop().call_later(0.01, left.set)  # longer than any body has here
        seen.append((await waiting)["type"])

    async def send(_message: Message) -> None: ...

    seen: list[str] = []
    await BodyLimit(app, {}, timeout_s=0.001)({"type": "http", "path": "/", "headers": []}, receive, send)

    assert seen == ["http.disconnect"]


class TestSettled:
    """Nothing goes out before what it rests on is on disk."""

    async def test_an_answer_and_each_part_of_a_stream_wait(self) -> None:
        seen: list[str] = []

        async def settled() -> None:
            seen.append("settled")

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def send(message: Message) -> None:
            seen.append(str(message.get("body", message["type"])))

        await Settled(stream, (), settled)({"type": "http", "path": "/"}, _no_body, send)

        assert seen == ["settled", "http.response.start", "settled", "b'part'", "b''"]

    async def test_what_the_disk_refuses_is_not_told(self) -> None:
        async def settled() -> None:
            raise TransientError("the disk is full", kind="disk")

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await Response(b"secret", 200)(scope, receive, send)

        app = Settled(answer, {"/healthz"}, settled)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://t") as client:
            refused, health = await client.get("/turns/1"), await client.get("/healthz")

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert b"secret" not in refused.content
        assert health.status_code == 200


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_a_foreign_page_is_403_with_a_problem(client: httpx2.AsyncClient) -> None:
    response = await client.get("/things/a", headers={"origin": "https://evil.example"})

    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert "EVERTURN_CORS_ORIGINS" in response.json()["detail"]


async def test_under_a_foreign_name_only_probes_are_answered(client: httpx2.AsyncClient) -> None:
    paths = ("/things/a", "/docs", "/metrics", "/healthz", "/readyz")

    statuses = [(await client.get(path, headers={"host": "evil.example"})).status_code for path in paths]

    assert statuses == [403, 403, 200, 200, 200]
