"""Calling another app, by its id, and the sidecar's own doors: tokens."""

import grpc
import httpx2
import pytest
from dapr.clients import DaprClient
from dapr.conf import settings as sdk_settings

from tests.conformance.sdk.app import Answer
from tests.conformance.sdk.program import Program
from tests.conformance.sdk.sidecars import API_TOKEN, APP_TOKEN


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_call_arrives_with_its_method_path_query_headers_and_body(program: Program, method: str) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")
    guarded.app.script(text, Answer(201, b"answer", {"content-type": "text/x", "x-of-app": "yes"}))
    body = b"" if method in ("GET", "DELETE") else b"body"

    response = program.http.request(
        method,
        f"invoke/{guarded.app_id}/method/some/{text}?a=1&b=%20x",
        content=body,
        headers={"x-mine": "1", "content-type": "text/y"},
    )

    (asked,) = guarded.app.asked("/some", text)
    assert (asked.method, asked.target, asked.body) == (method, f"/some/{text}?a=1&b=%20x", body)
    assert (asked.headers["x-mine"], asked.headers["dapr-caller-app-id"]) == ("1", program.sidecar.app_id)
    assert (response.status_code, response.content) == (201, b"answer")
    assert (response.headers["content-type"], response.headers["x-of-app"]) == ("text/x", "yes")


@pytest.mark.parametrize("status", [204, 302, 400, 401, 404, 409, 500, 503])
def test_what_the_app_answers_comes_back(program: Program, status: int) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")
    body = b"" if status == 204 else b'{"why": "because"}'
    guarded.app.script(text, Answer(status, body, {"content-type": "application/json"}))

    response = program.http.get(f"invoke/{guarded.app_id}/method/{text}")

    assert (response.status_code, response.content) == (status, body)
    assert len(guarded.app.asked("/", text)) == 1, "an answer is an answer: it is not asked for again"


def test_an_app_may_call_itself(program: Program) -> None:
    text = program.named("call")
    program.sidecar.app.script(text, Answer(200, b"mine"))

    assert program.http.get(f"invoke/{program.sidecar.app_id}/method/{text}").content == b"mine"


def test_an_app_may_be_named_in_a_header(program: Program) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")
    guarded.app.script(text, Answer(200, b"theirs"))
    address = f"http://{program.sidecar.grpc_address.partition(':')[0]}:{program.sidecar.http_port}/{text}"

    response = httpx2.get(address, headers={"dapr-app-id": guarded.app_id}, trust_env=False)

    assert (response.status_code, response.content) == (200, b"theirs")


def test_the_sdk_calls_over_http_and_over_grpc(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")
    guarded.app.script(text, Answer(200, b"from the app", {"content-type": "text/plain"}))
    answers = []

    for protocol in ("http", "grpc"):
        monkeypatch.setattr(sdk_settings, "DAPR_API_METHOD_INVOCATION_PROTOCOL", protocol)
        with DaprClient(program.sidecar.grpc_address) as client:
            answer = client.invoke_method(
                guarded.app_id, f"some/{text}", b"ask", content_type="text/x", http_verb="PUT",
                http_querystring=(("a", "1"),),
            )  # fmt: skip
        answers.append(answer.text())

    asked = guarded.app.asked("/some", text)
    assert answers == ["from the app"] * 2
    assert [(each.method, each.target, each.body, each.headers["content-type"]) for each in asked] == [
        ("PUT", f"/some/{text}?a=1", b"ask", "text/x")
    ] * 2


@pytest.mark.parametrize(
    ("status", "code"), [(404, "NOT_FOUND"), (409, "ALREADY_EXISTS"), (500, "UNKNOWN"), (503, "UNAVAILABLE")]
)
def test_an_error_of_the_app_is_an_error_over_grpc(
    program: Program, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")
    guarded.app.script(text, Answer(status, b"no"))
    monkeypatch.setattr(sdk_settings, "DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")

    with DaprClient(program.sidecar.grpc_address) as client, pytest.raises(grpc.RpcError) as raised:
        client.invoke_method(guarded.app_id, text, b"", http_verb="POST")

    assert raised.value.code().name == code


def test_an_app_that_nobody_knows_is_an_error_of_the_sidecar(program: Program) -> None:
    response = program.http.get("invoke/nobody/method/x")

    assert (response.status_code, response.json()["errorCode"]) == (500, "ERR_DIRECT_INVOKE")


@pytest.mark.parametrize("token", [None, "guessed"])
def test_a_caller_without_the_token_is_refused(program: Program, token: str | None) -> None:
    headers = {"dapr-api-token": token} if token else {}
    url = program.sidecars.guarded.url

    refused = httpx2.get(f"{url}/metadata", headers=headers, trust_env=False)
    health = httpx2.get(f"{url}/healthz", headers=headers, trust_env=False)

    assert (refused.status_code, health.status_code) == (401, 204)


def test_a_caller_with_the_token_is_let_in(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = program.sidecars.guarded
    over_http = httpx2.get(f"{guarded.url}/metadata", headers={"dapr-api-token": API_TOKEN}, trust_env=False)
    monkeypatch.setattr(sdk_settings, "DAPR_API_TOKEN", API_TOKEN)

    with DaprClient(guarded.grpc_address) as client:
        over_grpc = client.get_metadata()

    assert over_http.status_code == 200
    assert over_grpc.application_id == guarded.app_id


def test_grpc_asks_for_the_token_too(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_settings, "DAPR_API_TOKEN", "guessed")

    with DaprClient(program.sidecars.guarded.grpc_address) as client, pytest.raises(grpc.RpcError) as raised:
        client.get_metadata()

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_app_is_shown_its_token(program: Program) -> None:
    guarded, text = program.sidecars.guarded, program.named("call")

    program.http.get(f"invoke/{guarded.app_id}/method/{text}")

    (asked,) = guarded.app.asked("/", text)
    assert asked.headers["dapr-api-token"] == APP_TOKEN
