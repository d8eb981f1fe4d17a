"""The services apart on the embedded runtime: three processes, each of which may be killed."""

import socket
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import Client, Everturn, Machine

# What holds a turn in its first step for as long as the memory service is away.
HOLD_IN_FETCH = {"EVERTURN_FETCH_ATTEMPTS": "1000", "EVERTURN_FETCH_MAX_DELAY_S": "0.2"}


def free_pair() -> int:
    """A port of loopback that is free, and the next one with it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@dataclass
class Apart:
    """The three commands on the ports of one machine."""

    machine: Machine
    http_port: int
    grpc_port: int

    def sidecar(self, number: int) -> dict[str, str]:
        return {"DAPR_HTTP_PORT": str(self.http_port + number), "DAPR_GRPC_PORT": str(self.grpc_port + number)}

    async def runtime(self) -> Everturn:
        ports = ("--dapr-http-port", str(self.http_port), "--dapr-grpc-port", str(self.grpc_port))
        running = await self.machine.run("runtime", *ports)
        await running.out.first(lambda line: line.startswith("data folder"))
        return running

    async def chat(self) -> Everturn:
        return await self._service("chat", self.sidecar(0))

    async def memory(self) -> Everturn:
        return await self._service("memory", self.sidecar(1))

    async def _service(self, command: str, environment: dict[str, str]) -> Everturn:
        running = await self.machine.run("serve", command, **environment)
        await running.out.first(lambda line: line.startswith(f"{command} service"))
        return running


@pytest.fixture
def apart(machine: Machine) -> Apart:
    return Apart(machine, free_pair(), free_pair())


async def test_three_processes_answer_and_remember(apart: Apart, client: Client) -> None:
    await apart.runtime()
    await apart.memory()
    await apart.chat()

    first = await client.say("My name is Nadia")
    second = await client.say("What is my name?")

    async def all_stored() -> bool:
        return len(await client.history()) == 4

    await client.until(all_stored)
    assert first.status_code == 200
    assert "Nadia" in second.json()["reply"]


async def test_a_turn_survives_the_kill_of_each_process(apart: Apart, client: Client) -> None:
    apart.machine.settings.update(HOLD_IN_FETCH)
    runtime, chat, memory = await apart.runtime(), await apart.chat(), await apart.memory()
    await client.say("Hello", session="before")
    await memory.kill()
    accepted = await client.say("Hello again", headers={"Prefer": "respond-async"})
    turn_id = accepted.json()["turn_id"]

    async def is_in_its_first_step() -> bool:
        return any(step["attempts"] > 0 for step in (await client.turn(turn_id))["steps"])

    await client.until(is_in_its_first_step)
    await chat.kill()
    chat = await apart.chat()
    await runtime.kill()
    runtime = await apart.runtime()
    before = await client.turn(turn_id)
    await apart.memory()

    async def has_ended() -> bool:
        return (await client.turn(turn_id))["status"] in ("completed", "failed")

    await client.until(has_ended)
    after = await client.turn(turn_id)
    assert accepted.status_code == 202
    assert before["status"] == "running"
    assert after["status"] == "completed"
    assert after["reply"]["degraded"] == []

    async def is_stored() -> bool:
        return len(await client.history()) == 2

    await client.until(is_stored)


async def test_a_runtime_whose_port_is_taken_says_so_and_does_not_wait_for_workflows(
    apart: Apart, client: Client
) -> None:
    apart.machine.settings.update(HOLD_IN_FETCH)
    runtime, chat = await apart.runtime(), await apart.chat()
    await client.say("Hello", headers={"Prefer": "respond-async"})
    await chat.kill()
    await runtime.kill()
    # Longer than `first` waits for a line.
    apart.machine.settings["EVERTURN_SHUTDOWN_S"] = "600"

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", apart.grpc_port + 1))
        other.listen()
        ports = ("--dapr-http-port", str(apart.http_port), "--dapr-grpc-port", str(apart.grpc_port))
        second = await apart.machine.run("runtime", *ports)
        said = await second.err.first(lambda line: line.startswith("everturn: "))

    assert f"port {apart.grpc_port + 1} is taken or not allowed" in said
    assert "--dapr-grpc-port" in said


async def test_each_command_ends_with_0_at_sigterm(apart: Apart) -> None:
    runtime, chat, memory = await apart.runtime(), await apart.chat(), await apart.memory()

    codes = [await chat.stop(), await memory.stop(), await runtime.stop()]

    assert codes == [0, 0, 0]


async def test_with_tokens_set_the_system_works_and_strangers_are_refused(apart: Apart, client: Client) -> None:
    apart.machine.settings.update({"DAPR_API_TOKEN": "for-sidecars", "APP_API_TOKEN": "for-apps"})
    await apart.runtime()
    await apart.memory()
    await apart.chat()

    answer = await client.say("Hello")
    sidecar = await client.http.get(f"http://127.0.0.1:{apart.http_port}/v1.0/state/statestore/x")
    event = await client.http.post(f"{apart.machine.memory_url}/conversations", json={})

    async def is_stored() -> bool:
        history = f"{apart.machine.memory_url}/conversations/s1"
        stored = await client.http.get(history, headers={"dapr-api-token": "for-apps"})
        return len(stored.json()["history"]) == 2

    await client.until(is_stored)
    assert (answer.status_code, answer.json()["degraded"]) == (200, [])
    assert (sidecar.status_code, event.status_code) == (401, 401)
