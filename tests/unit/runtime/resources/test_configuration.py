"""A Configuration: which secrets an app may have, and what of it has no effect."""

import json
import logging
from pathlib import Path

import grpc
import pytest

from everturn.dapr.wire import Request, Transport
from everturn.errors import StartError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.errors import DaprError
from everturn.runtime.grpc.server import code_of
from everturn.runtime.resources.configuration import Configuration, SecretScope, read_configuration
from tests.unit.runtime.conftest import ScriptedApp


def written(folder: Path, text: str) -> Path:
    file = folder / "configuration.yaml"
    file.write_text(text, "utf-8")
    return file


def scoped(folder: Path, scope: str) -> Configuration:
    return read_configuration(written(folder, f"kind: Configuration\nspec: {{secrets: {{scopes: [{scope}]}}}}"))


@pytest.mark.parametrize(
    ("scope", "may_have"),
    [
        ("{storeName: vault}", {"a", "b"}),
        ("{storeName: vault, defaultAccess: deny}", set()),
        ("{storeName: vault, defaultAccess: Deny, allowedSecrets: [a]}", {"a"}),
        ("{storeName: vault, allowedSecrets: [a]}", {"a"}),
        ("{storeName: vault, deniedSecrets: [a]}", {"b"}),
        ("{storeName: vault, allowedSecrets: [a, b], deniedSecrets: [a]}", {"a", "b"}),
        ("{storeName: another, defaultAccess: deny}", {"a", "b"}),
    ],
)
def test_a_scope_allows_what_it_allows_on_dapr(tmp_path: Path, scope: str, may_have: set[str]) -> None:
    configuration = scoped(tmp_path, scope)

    assert {name for name in ("a", "b") if configuration.allows_secret("vault", name)} == may_have


def test_what_is_not_used_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_configuration(
            written(tmp_path, "kind: Configuration\nspec: {tracing: {}, accessControl: {}, secrets: {}}")
        )

    (record,) = caplog.records
    assert (record.message, record.__dict__["what"]) == ("configuration_ignored", "accessControl, tracing")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Component", "must hold one resource of kind Configuration"),
        ("kind: [", "cannot be read"),
        ("kind: Configuration\nspec: {secrets: {scopes: [{}]}}", "needs a storeName"),
        ("kind: Configuration\nspec: {secrets: {scopes: [{storeName: s}, {storeName: s}]}}", "'s' twice"),
        ("kind: Configuration\nspec: {secrets: {scopes: [{storeName: s, defaultAccess: no}]}}", "allow or deny"),
        ("kind: Configuration\nspec: {secrets: {scopes: [{storeName: s, allowedSecrets: a}]}}", "lists of names"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        read_configuration(written(tmp_path, text))


@pytest.fixture
async def sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transport:
    monkeypatch.setenv("MINE", "yes")
    monkeypatch.setenv("THEIRS", "no")
    scope = "{storeName: secretstore, defaultAccess: deny, allowedSecrets: [MINE]}"
    file = written(tmp_path, f"kind: Configuration\nspec: {{secrets: {{scopes: [{scope}]}}}}")
    runtime = await EmbeddedRuntime.open(tmp_path / "data", options=RuntimeOptions(configuration=file))
    transport = runtime.add_app("app", ScriptedApp()).transport
    await runtime.stop(0)  # secrets are not in the database
    return transport


async def test_an_app_gets_the_secrets_of_its_scope_and_no_other(sidecar: Transport) -> None:
    allowed = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/MINE"))
    denied = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/THEIRS"))
    everything = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert json.loads(allowed.body) == {"MINE": "yes"}
    assert (denied.status, json.loads(denied.body)["errorCode"]) == (403, "ERR_PERMISSION_DENIED")
    assert json.loads(everything.body) == {"MINE": {"MINE": "yes"}}


@pytest.mark.parametrize("configuration", [None, "kind: Configuration\nspec: {secrets: {scopes: []}}"])
async def test_without_component_files_an_app_reads_the_named_variables_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str | None
) -> None:
    monkeypatch.setenv("MINE", "yes")
    monkeypatch.setenv("THEIRS", "no")
    file = written(tmp_path, configuration) if configuration is not None else None
    options = RuntimeOptions(configuration=file, secrets=frozenset({"MINE", "UNSET"}))
    runtime = await EmbeddedRuntime.open(tmp_path / "data", options=options)
    transport = runtime.add_app("app", ScriptedApp()).transport
    await runtime.stop(0)  # secrets are not in the database

    one = await transport.send(Request("GET", "/v1.0/secrets/secretstore/MINE"))
    unset = await transport.send(Request("GET", "/v1.0/secrets/secretstore/UNSET"))
    denied = await transport.send(Request("GET", "/v1.0/secrets/secretstore/THEIRS"))
    everything = await transport.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert (json.loads(one.body), json.loads(unset.body)) == ({"MINE": "yes"}, {"UNSET": ""})
    assert (denied.status, json.loads(denied.body)["errorCode"]) == (403, "ERR_PERMISSION_DENIED")
    assert json.loads(everything.body) == {"MINE": {"MINE": "yes"}}


def test_over_grpc_that_is_permission_denied() -> None:
    assert code_of(DaprError(403, "ERR_PERMISSION_DENIED", "")) is grpc.StatusCode.PERMISSION_DENIED


def test_without_a_scope_everything_is_allowed() -> None:
    assert Configuration().allows_secret("vault", "a")
    assert SecretScope().allows("a")
