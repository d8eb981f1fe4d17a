"""What the doctor finds out about a model, its key and the clock, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from pydantic import SecretStr

from everturn.cli import checks
from everturn.cli.checks import Finding
from everturn.contracts.fields import utc_now
from everturn.settings import Settings
from everturn.testing.model_answers import Answer, Endless, Reset, Whole, as_json, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider

KEY = "canary-key-4711"
LIST = as_json({"data": [{"id": "scripted"}, {"id": "models/gemini-2.5-flash"}]})


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    async with ModelEndpoint() as started:
        yield started


async def findings(base_url: str, **given: Any) -> list[Finding]:
    given = {"model_base_url": base_url, "model_name": "scripted", "model_api_key": KEY, **given}
    settings = Settings(_env_file=None, dapr_http_port=1, **given)
    async with checks.Sidecar(settings) as sidecar:
        return await checks.model(settings, sidecar)


def of(found: list[Finding], name: str) -> Finding:
    (finding,) = [each for each in found if each.name == name]
    return finding


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (LIST, "ok", "has 'scripted'"),
        (as_json({"data": [{"id": "another"}]}), "warning", "EVERTURN_MODEL_NAME"),
        (as_json({"models": []}), "warning", "EVERTURN_MODEL_BASE_URL"),
        (Whole(b"<html>"), "warning", "EVERTURN_MODEL_BASE_URL"),
        (Endless(), "warning", "EVERTURN_MODEL_BASE_URL"),
        (status(404), "warning", "EVERTURN_MODEL_BASE_URL"),
        (status(401), "problem", "check the key"),
        (status(500), "problem", "answered 500"),
        (status(302), "problem", "redirected"),
        (Reset(), "problem", "HTTPS_PROXY"),
    ],
)
async def test_the_endpoint_is_asked_for_its_models(
    endpoint: ModelEndpoint, answer: Answer, expected: str, says: str
) -> None:
    endpoint.script(answer)

    found = await findings(endpoint.base_url)

    finding = of(found, "model")
    assert finding.status == expected
    assert says in finding.message
    assert f"http://127.0.0.1:{endpoint.port}" in finding.message
    (request,) = endpoint.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/models", f"Bearer {KEY}")
    assert KEY not in str(found)


async def test_without_an_endpoint_the_offline_demo_is_named() -> None:
    (finding,) = await findings("", model_name=None, model_api_key=None)

    assert (finding.status, "offline demo" in finding.message) == ("ok", True)


async def test_without_a_key_none_is_sent(endpoint: ModelEndpoint) -> None:
    endpoint.script(LIST)

    found = await findings(endpoint.base_url, model_api_key=None)

    assert of(found, "key").message == "none is set; none is sent"
    assert "authorization" not in endpoint.requests[0].headers


@pytest.mark.parametrize(("seconds", "says"), [(60, "behind"), (-60, "ahead of"), (5, None)])
async def test_a_clock_that_is_far_from_the_models_is_warned_of(
    endpoint: ModelEndpoint, seconds: int, says: str | None
) -> None:
    date = format_datetime(utc_now() + timedelta(seconds=seconds), usegmt=True)
    endpoint.script(Whole(LIST.body, headers={"date": date}))

    found = [each for each in await findings(endpoint.base_url) if each.name == "clock"]

    assert [(each.status, says is not None and says in each.message) for each in found] == (
        [("warning", True)] if says else []
    )


@pytest.mark.parametrize("date", [None, "soon", "Mon, 01 Jun 2026 12:00:00 -0000"])
def test_whatever_a_date_says_it_is_no_error(date: str | None) -> None:
    assert len(checks.skew("model", date)) <= 1


def test_a_wall_clock_that_jumps_is_warned_of() -> None:
    wall, monotonic = checks.both_clocks()

    assert checks.wall_clock((wall, monotonic)).status == "ok"
    assert checks.wall_clock((wall - 3_600, monotonic)).status == "warning"


def folder(path: Path) -> dict[str, Finding]:
    return {each.name: each for each in checks.folder(Settings(_env_file=None, data_dir=path))}


def test_a_folder_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    assert folder(tmp_path / "file" / "data")["folder"].status == "problem"


def test_a_folder_that_others_can_open_is_warned_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    assert folder(tmp_path)["folder"].status == "warning"


@pytest.mark.parametrize(("version", "expected"), [(0, "ok"), (1, "ok"), (99, "problem")])
def test_a_database_of_a_later_release_is_a_problem(tmp_path: Path, version: int, expected: str) -> None:
    with apsw.Connection(str(tmp_path / "everturn.db")) as connection:
        connection.pragma("user_version", version)
        connection.execute("CREATE TABLE one (n)")
    connection.close()

    assert folder(tmp_path)["database"].status == expected


def test_a_database_that_is_none_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "everturn.db").write_bytes(b"no database at all" * 100)

    found = folder(tmp_path)["database"]

    assert found.status == "problem"
    assert "back-up.md" in found.message


@pytest.mark.parametrize(("free", "expected"), [(2**40, "ok"), (2**29, "warning"), (2**20, "problem")])
def test_a_disk_that_is_nearly_full_is_said(free: int, expected: str) -> None:
    assert checks.disk(free).status == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "ok"),
        ({"host": "0.0.0.0"}, "problem"),
        ({"host": "0.0.0.0", "auth": "none"}, "warning"),
        ({"host": "0.0.0.0", "auth": "header", "proxy_token": "t"}, "ok"),
    ],
)
def test_a_host_that_others_reach_needs_users_who_sign_in(given: dict[str, Any], expected: str) -> None:
    assert checks.callers(Settings(_env_file=None, **given)).status == expected


async def test_keys_of_an_identity_provider_that_cannot_be_read_are_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    given: dict[str, Any] = {"auth": "jwt", "jwt_jwks": str(file), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    settings = Settings(_env_file=None, **given)
    (missing,) = await checks.identity_provider(settings)
    await asyncio.to_thread(file.write_bytes, IdentityProvider().jwks())

    (there,) = await checks.identity_provider(settings)

    assert (missing.status, there.status) == ("problem", "ok")
    assert "EVERTURN_JWT_JWKS" in missing.message


async def test_what_listens_and_is_no_sidecar_is_a_problem() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with (
        server,
        checks.Sidecar(Settings(_env_file=None, dapr_http_port=server.sockets[0].getsockname()[1])) as it,
    ):
        (finding,) = await it.findings()

    assert finding.status == "problem"
    assert "DAPR_HTTP_PORT" in finding.message


async def test_a_token_that_cannot_be_sent_is_a_problem_that_names_its_header() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port, token = server.sockets[0].getsockname()[1], SecretStr("canary\n")

    async with server, checks.Sidecar(Settings(_env_file=None, dapr_http_port=port, dapr_api_token=token)) as it:
        (finding,) = await it.findings()

    assert finding.status == "problem"
    assert "'dapr-api-token'" in finding.message
    assert "canary" not in finding.message
