"""Secrets of the environment and of files, as an app gets them over HTTP."""

import json
from pathlib import Path

import pytest

from everturn.dapr.wire import Request, Response, Transport
from everturn.runtime.resources.components import Component, Components
from tests.unit.runtime.conftest import (
    OpenRig,
)


def error(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["errorCode"]


async def test_a_secret_of_the_environment_is_given(sidecar: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "s3cret")

    response = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/MODEL_KEY"))

    assert json.loads(response.body) == {"MODEL_KEY": "s3cret"}


@pytest.mark.parametrize("name", ["APP_API_TOKEN", "DAPR_API_TOKEN", "dapr_api_token"])
async def test_the_runtimes_own_tokens_are_no_secrets(
    sidecar: Transport, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "s3cret")

    one = await sidecar.send(Request("GET", f"/v1.0/secrets/secretstore/{name}"))
    every = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert json.loads(one.body) == {name: ""}
    assert name not in json.loads(every.body)


async def test_all_secrets_of_the_environment_are_given_in_bulk(
    sidecar: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "s3cret")

    response = await sidecar.send(Request("GET", "/v1.0/secrets/secretstore/bulk"))

    assert json.loads(response.body)["MODEL_KEY"] == {"MODEL_KEY": "s3cret"}


def file_store(path: Path, **metadata: str) -> Components:
    content = {"plain": "a", "redis": {"host": "h", "ports": [1, 2]}}
    path.write_text(json.dumps(content), "utf-8")
    store = Component("files", "secretstores.local.file", metadata={"secretsFile": str(path), **metadata})
    return Components({"files": store})


async def test_nested_secrets_of_a_file_are_joined_by_colons(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json"))

    nested = await rig.api().handle(Request("GET", "/v1.0/secrets/files/redis%3Aports%3A1"))
    every = await rig.api().handle(Request("GET", "/v1.0/secrets/files/bulk"))

    assert json.loads(nested.body) == {"redis:ports:1": "2"}
    assert set(json.loads(every.body)) == {"plain", "redis:host", "redis:ports:0", "redis:ports:1"}


async def test_a_multi_valued_file_has_secrets_of_several_keys(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json", multiValued="true"))

    nested = await rig.api().handle(Request("GET", "/v1.0/secrets/files/redis"))
    plain = await rig.api().handle(Request("GET", "/v1.0/secrets/files/plain"))

    assert json.loads(nested.body) == {"host": "h", "ports:0": "1", "ports:1": "2"}
    assert json.loads(plain.body) == {"plain": "a"}


async def test_a_secret_that_a_file_does_not_have_is_an_error(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = await open_rig(file_store(tmp_path / "secrets.json"))

    response = await rig.api().handle(Request("GET", "/v1.0/secrets/files/nothing"))

    assert error(response) == (500, "ERR_SECRET_GET")


async def test_an_unknown_secret_store_is_401_as_on_dapr(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/secrets/other/x"))

    assert error(response) == (401, "ERR_SECRET_STORE_NOT_FOUND")


async def test_without_any_secret_store_it_is_500(open_rig: OpenRig) -> None:
    rig = await open_rig(Components({}))

    response = await rig.api().handle(Request("GET", "/v1.0/secrets/other/x"))

    assert error(response) == (500, "ERR_SECRET_STORES_NOT_CONFIGURED")
