"""`everturn doctor` on a real machine: beside nothing, beside a running system, and with what goes wrong."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from everturn.testing.model_answers import as_json
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine, free_ports


async def examine(machine: Machine, *, code: int, **settings: str) -> dict[str, list[dict[str, Any]]]:
    """The findings by name, of a doctor that ends with `code`."""
    doctor = await machine.run("doctor", "--json", **settings)
    ended = await doctor.exit_code()
    assert ended == code, doctor.out.all + doctor.err.all
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads("\n".join(doctor.out.all))["findings"]:
        found.setdefault(finding["name"], []).append(finding)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_a_machine_on_which_all_is_well_is_left_as_it_is(machine: Machine) -> None:
    before = files(machine.folder)

    doctor = await machine.run("doctor")
    code = await doctor.exit_code()

    assert code == 0
    assert [line for line in doctor.out.all if not line.startswith("ok ")] == []
    names = {line.split()[1].rstrip(":") for line in doctor.out.all}
    assert names == {"versions", "settings", "disk", "folder", "port", "callers", "model", "sidecar", "clock"}
    assert doctor.err.all == []
    assert files(machine.folder) == before


async def test_a_running_system_is_known_by_its_ports_and_its_folder(machine: Machine, client: Client) -> None:
    running = await machine.up()
    await client.say("Hi there")

    found = await examine(machine, code=0)

    assert f"process {running.process.pid}" in found["folder"][0]["message"]
    assert found["database"][0]["status"] == "ok"
    assert "Everturn's chat service answers" in found[f"port {machine.chat_port}"][0]["message"]
    assert "Everturn's memory service answers" in found[f"port {machine.memory_port}"][0]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells whose a port is")
async def test_a_port_of_another_program_is_a_problem_that_names_it(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.chat_port)):
        found = await examine(machine, code=1)

    (port,) = found[f"port {machine.chat_port}"]
    assert port["status"] == "problem"
    assert f"process {os.getpid()}" in port["message"]
    assert "EVERTURN_CHAT_PORT" in port["message"]


async def test_a_wrong_setting_and_a_misspelled_one_are_named(machine: Machine) -> None:
    wrong = await examine(machine, code=1, EVERTURN_REQUEST_WAIT_S="soon")
    misspelled = await examine(machine, code=0, EVERTURN_MODLE="m")

    assert "EVERTURN_REQUEST_WAIT_S" in wrong["settings"][0]["message"]
    assert misspelled["settings"][0]["status"] == "warning"
    assert "EVERTURN_MODEL_NAME" in misspelled["settings"][0]["message"]


async def test_a_sidecar_is_looked_at_once_its_port_is_set(machine: Machine) -> None:
    http_port, grpc_port = free_ports(2)
    ports = {"DAPR_HTTP_PORT": str(http_port), "DAPR_GRPC_PORT": str(grpc_port)}
    missing = await examine(machine, code=1, **ports)
    flags = ("-H", str(http_port), "-G", str(grpc_port))
    runtime = await machine.run("runtime", "--app-id", "chat-service", *flags, DAPR_API_TOKEN="canary-token")
    await runtime.out.first(lambda line: line.startswith("data folder"))

    refused = await examine(machine, code=1, **ports, DAPR_API_TOKEN="guessed")
    there = await examine(machine, code=0, **ports, DAPR_API_TOKEN="canary-token")

    assert "start `everturn runtime`" in missing["sidecar"][0]["message"]
    assert "DAPR_API_TOKEN" in refused["sidecar"][0]["message"]
    message = there["sidecar"][0]["message"]
    assert "everturn runtime" in message
    assert "app 'chat-service'" in message
    assert "state in state." in message
    assert "canary" not in str(refused) + str(there)


async def test_a_key_of_the_sidecars_store_is_used_and_not_shown(machine: Machine) -> None:
    http_port, grpc_port = free_ports(2)
    ports = {"DAPR_HTTP_PORT": str(http_port), "DAPR_GRPC_PORT": str(grpc_port)}
    key = "canary-key-4711"
    async with ModelEndpoint(as_json({"data": [{"id": "llama"}]})) as endpoint:
        model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "llama"}
        flags = ("--app-id", "chat-service", "-H", str(http_port), "-G", str(grpc_port))
        runtime = await machine.run("runtime", *flags, EVERTURN_MODEL_API_KEY=key, **model)
        await runtime.out.first(lambda line: line.startswith("data folder"))

        found = await examine(machine, code=0, **ports, **model)

    assert "sidecar's secret store" in found["key"][0]["message"]
    assert found["model"][0]["status"] == "ok"
    assert endpoint.requests[0].headers["authorization"] == f"Bearer {key}"
    assert key not in str(found)
