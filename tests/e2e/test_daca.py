"""The two services of the DACA tutorial's shape (`examples/daca`), unchanged, each beside its runtime."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.conftest import SOURCE, Client, Everturn, Machine, free_ports

DACA = SOURCE.parent / "examples/daca"
START, SHUTDOWN = "    engine.start()\n", "    engine.shutdown()\n"
APP = 'FastAPI(title="DACA Chat Service")'
STARTED_ONCE = 'FastAPI(title="DACA Chat Service", on_startup=[engine.start], on_shutdown=[engine.shutdown])'


@dataclass(frozen=True, slots=True)
class Services:
    """Both services; `sidecar_url` is of the chat service's runtime."""

    client: Client
    chat: Everturn
    memory: Everturn
    sidecar_url: str

    async def say(self, text: str) -> httpx2.Response:
        body = {"user_id": "junaid", "session_id": "s1", "text": text}
        return await self.client.http.post(f"{self.client.machine.chat_url}/chat/", json=body)

    async def remembered(self, count: int) -> None:
        async def all_stored() -> bool:
            return len(await self.client.history()) == count

        await self.client.until(all_stored)

    async def stop(self) -> tuple[int, int]:
        return await self.chat.stop(), await self.memory.stop()


async def start(machine: Machine, client: Client, chat_program: Path = DACA / "chat_service.py") -> Services:
    http_port, grpc_port = free_ports(2)

    async def run(app_id: str, port: int, program: Path, *flags: str) -> Everturn:
        arguments = ("--app-id", app_id, "--app-port", str(port), "-d", str(DACA / "components"), *flags)
        return await machine.run("runtime", *arguments, "--", sys.executable, str(program))

    memory = await run("agent-memory-service", machine.memory_port, DACA / "memory_service.py")
    ports = ("--dapr-http-port", str(http_port), "--dapr-grpc-port", str(grpc_port))
    chat = await run("chat-service", machine.chat_port, chat_program, *ports)

    async def both_answer() -> bool:
        try:
            answers = [await client.http.get(url) for url in (machine.chat_url, machine.memory_url)]
        except httpx2.TransportError:
            return False
        return all(answer.status_code == 200 for answer in answers)

    await client.until(both_answer)
    return Services(client, chat, memory, f"http://127.0.0.1:{http_port}")


def changed(machine: Machine, *changes: tuple[str, str]) -> Path:
    """The chat service with `changes`, each of a text that is there once."""
    source = (DACA / "chat_service.py").read_text("utf-8")
    for before, after in changes:
        assert source.count(before) == 1
        source = source.replace(before, after)
    program = machine.folder / "chat_service.py"
    program.write_text(source, "utf-8")
    return program


async def test_a_message_is_answered_and_remembered(machine: Machine, client: Client) -> None:
    services = await start(machine, client)

    reply = await services.say("Hi there")
    await services.remembered(2)

    codes = await services.stop()
    assert reply.json() == {"user_id": "junaid", "reply": "You said 'Hi there'; I know 0 messages of ours."}
    lines = [line for line in services.chat.out.all if line.startswith("Workflow")]
    assert lines[0] == "Workflow engine started for chat-service"
    assert lines[1].startswith("Workflow started. Instance ID: ")
    assert lines[2:] == ["Workflow completed! Status: COMPLETED"]
    assert "Stored 2 messages of session s1" in services.memory.out.all
    assert codes == (0, 0)


async def test_what_was_remembered_outlives_both_runtimes(machine: Machine, client: Client) -> None:
    services = await start(machine, client)
    await services.say("Hi there")
    await services.remembered(2)
    await services.chat.kill()
    await services.memory.kill()

    services = await start(machine, client)
    reply = await services.say("Hi again")

    assert reply.json()["reply"] == "You said 'Hi again'; I know 2 messages of ours."
    assert list((machine.folder / ".everturn/apps/agent-memory-service").glob("*.db")) != []


async def test_the_second_message_fails_because_the_first_has_shut_the_worker_down(
    machine: Machine, client: Client
) -> None:
    services = await start(machine, client)
    first = await services.say("Hi there")

    second = await services.say("Hi again")

    assert (first.status_code, second.status_code) == (200, 500)
    assert await services.chat.err.first(lambda line: line.startswith("RuntimeError: Worker was stopped"))


async def test_without_the_shutdown_alone_the_second_start_is_refused(machine: Machine, client: Client) -> None:
    services = await start(machine, client, changed(machine, (SHUTDOWN, "")))
    await services.say("Hi there")

    second = await services.say("Hi again")

    assert second.status_code == 500
    assert await services.chat.err.first(lambda line: line.startswith("RuntimeError: The worker is already running"))


async def test_with_the_start_moved_alone_the_second_message_hangs(machine: Machine, client: Client) -> None:
    services = await start(machine, client, changed(machine, (START, ""), (APP, STARTED_ONCE)))
    await services.say("Hi there")

    second = asyncio.create_task(services.say("Hi again"))

    async def has_no_worker() -> bool:
        metadata: dict[str, Any] = (await client.http.get(f"{services.sidecar_url}/v1.0/metadata")).json()
        return bool(metadata["workflows"].get("connectedWorkers", 0) == 0)

    await client.until(has_no_worker)
    done, _ = await asyncio.wait([second], timeout=3)
    assert done == set()
    second.cancel()


async def test_with_one_start_in_a_process_every_message_is_answered(machine: Machine, client: Client) -> None:
    mended = changed(machine, (START, ""), (SHUTDOWN, ""), (APP, STARTED_ONCE))
    services = await start(machine, client, mended)

    await services.say("Hi there")
    await services.remembered(2)
    reply = await services.say("Hi again")
    await services.remembered(4)

    assert reply.json()["reply"] == "You said 'Hi again'; I know 2 messages of ours."
    assert await services.stop() == (0, 0)


def test_the_page_shows_the_mend_that_is_tried_here() -> None:
    page = (SOURCE.parent / "docs/how-to/from-the-daca-tutorial.md").read_text("utf-8")

    assert f"+app = {STARTED_ONCE}\n" in page
    assert f"-{START}" in page
    assert f"-{SHUTDOWN}" in page
