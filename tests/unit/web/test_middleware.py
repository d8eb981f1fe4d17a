import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from everturn.errors import TransientError
from everturn.web.middleware import MAX_BODY_BYTES, BodyLimit, Settled
from tests.unit.web.conftest import JSON, LARGE_LIMIT

pytestmark = pytest.mark.asyncio(loop_scope="session")


def note_of(size: int) -> bytes:
    empty = b'{"text":""}'
    return b'{"text":"' + b"x" * (size - len(empty)) + b'"}'


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


async def test_a_body_of_one_mebibyte_is_read(client: httpx2.AsyncClient) -> None:
    response = await client.post("/notes", content=note_of(MAX_BODY_BYTES), headers=JSON)

    assert response.status_code == 200


async def test_a_body_over_one_mebibyte_is_413(client: httpx2.AsyncClient) -> None:
    response = await client.post("/notes", content=note_of(MAX_BODY_BYTES + 1), headers=JSON)

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_body_over_one_mebibyte_of_unknown_length_is_413(client: httpx2.AsyncClient) -> None:
    response = await client.post("/notes", content=in_chunks(note_of(MAX_BODY_BYTES + 1)), headers=JSON)

    assert response.status_code == 413
    assert response.json()["status"] == 413


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

        await Settled(stream, settled, ())({"type": "http", "path": "/"}, _no_body, send)

        assert seen == ["settled", "http.response.start", "settled", "b'part'", "b''"]

    async def test_what_the_disk_refuses_is_not_told(self) -> None:
        async def settled() -> None:
            raise TransientError("the disk is full", kind="disk")

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await Response(b"secret", 200)(scope, receive, send)

        app = Settled(answer, settled, {"/healthz"})
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
