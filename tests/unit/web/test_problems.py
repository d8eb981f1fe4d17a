import logging

import httpx2
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


def assert_problem(response: httpx2.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status


async def test_an_unknown_route_is_a_404_problem(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404)


async def test_a_route_with_a_slash_too_many_is_unknown_and_not_redirected(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/healthz/"), 404)


async def test_an_unknown_method_is_a_405_problem_that_names_the_right_one(client: httpx2.AsyncClient) -> None:
    response = await client.get("/notes")

    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"


async def test_a_problem_carries_its_extra_members(client: httpx2.AsyncClient) -> None:
    response = await client.get("/fail/problem")

    assert_problem(response, 409)
    assert response.json()["detail"] == "it has ended"
    assert response.json()["turn_id"] == "t1"


async def test_a_transient_error_is_503_and_says_when_to_come_back(client: httpx2.AsyncClient) -> None:
    response = await client.get("/fail/transient")

    assert_problem(response, 503)
    assert response.headers["retry-after"] == "3"


async def test_a_lost_race_that_nobody_settled_is_503(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/fail/conflict"), 503)


@pytest.mark.parametrize(("how", "status"), [("not-found", 404), ("forbidden", 403)])
async def test_a_refusal_has_the_status_of_its_kind_and_its_own_sentence(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, how: str, status: int
) -> None:
    with caplog.at_level(logging.INFO):
        response = await client.get(f"/fail/{how}")

    assert_problem(response, status)
    assert "'" in response.json()["detail"]
    assert "request_failed" not in caplog.text


@pytest.mark.parametrize("how", ["bug", "unmapped"])
async def test_an_unexpected_error_is_a_500_that_tells_nothing(client: httpx2.AsyncClient, how: str) -> None:
    response = await client.get(f"/fail/{how}")

    assert_problem(response, 500)
    assert "secret" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(("how", "kind"), [("bug", "RuntimeError"), ("unmapped", "TerminalError")])
async def test_an_unexpected_error_is_logged_without_its_text(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, how: str, kind: str
) -> None:
    with caplog.at_level(logging.INFO):
        await client.get(f"/fail/{how}")

    events = [record for record in caplog.records if record.getMessage() == "request_failed"]
    assert [record.__dict__["error"] for record in events] == [kind]
    assert "a secret text" not in caplog.text


@pytest.mark.parametrize("how", ["problem", "transient", "conflict"])
async def test_an_expected_error_is_not_logged_as_a_failure(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with caplog.at_level(logging.INFO):
        await client.get(f"/fail/{how}")

    assert "request_failed" not in caplog.text


async def test_an_unexpected_error_keeps_its_cors_headers(client: httpx2.AsyncClient) -> None:
    response = await client.get("/fail/bug", headers={"origin": "http://localhost:3000"})

    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_a_wrong_field_is_named_and_its_value_is_not_repeated(client: httpx2.AsyncClient) -> None:
    response = await client.post("/notes", json={"text": ["canary"], "stars": -1})

    assert_problem(response, 422)
    assert {fault["field"] for fault in response.json()["errors"]} == {"body.text", "body.stars"}
    assert "canary" not in response.text


async def test_the_api_document_describes_errors_as_problems(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    answers = document["paths"]["/notes"]["post"]["responses"]
    assert list(answers["422"]["content"]) == ["application/problem+json"]
