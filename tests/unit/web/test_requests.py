import httpx2
import pytest
from fastapi import FastAPI

from everturn.web.requests import Preferences, encoded_id, header_text, preferences_of
from tests.unit.web.conftest import JSON, Probe

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
