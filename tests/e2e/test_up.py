"""`everturn up`: what a person sees of it, from the first line to the exit code."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import SOURCE, Client, Everturn, Machine

ROOT = SOURCE.parent


async def test_a_first_message_is_answered_and_both_sides_of_it_are_kept(machine: Machine, client: Client) -> None:
    await machine.up()

    reply = await client.say("Hi there")

    assert reply.status_code == 200, reply.text
    assert (reply.json()["status"], reply.json()["model"]) == ("completed", "offline-demo")
    session = reply.json()["metadata"]["session_id"]

    async def both_are_there() -> bool:
        return len(await client.history(session)) == 2

    await client.until(both_are_there)
    assert [entry["content"] for entry in await client.history(session)] == ["Hi there", reply.json()["reply"]]


async def test_the_next_reply_knows_the_name_and_style_that_were_set(machine: Machine, client: Client) -> None:
    await machine.up()
    memory = {"name": "Doctor Khan", "preferred_style": "formal", "user_summary": "Doctor Khan likes chess."}
    casual = (await client.say("Hello", session="before")).json()["reply"]
    await client.http.post(f"{machine.memory_url}/memories/junaid/initialize", json=memory)

    formal = (await client.say("Hello", session="after")).json()["reply"]

    assert "Doctor Khan" in formal
    assert "Doctor Khan" not in casual


async def test_it_says_where_everything_is(machine: Machine) -> None:
    running = await machine.up()

    shown = "\n".join(running.out.all)
    assert machine.chat_url in shown
    assert machine.memory_url in shown
    assert str(machine.folder / ".everturn") in shown
    assert "offline-demo" in shown
    assert "resumed 0 unfinished turns" in shown
    assert f"curl -X POST {machine.chat_url}/chat/" in shown


async def test_it_runs_with_the_component_files_of_its_folder_and_names_them(machine: Machine, client: Client) -> None:
    shutil.copytree(ROOT / "components", machine.folder / "components")

    running = await machine.up()
    reply = (await client.say("Hi there")).json()

    assert f"  components      {machine.folder / 'components'}" in running.out.all
    assert reply["status"] == "completed"

    async def is_stored() -> bool:
        return len(await client.history(reply["metadata"]["session_id"])) == 2

    await client.until(is_stored)


async def test_both_services_are_ready_once_it_says_so(machine: Machine, client: Client) -> None:
    await machine.up()

    for url in (machine.chat_url, machine.memory_url):
        assert (await client.http.get(f"{url}/readyz")).json() == {"status": "ok"}
        assert (await client.http.get(f"{url}/healthz")).json() == {"status": "ok"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the listeners from /proc")
async def test_it_listens_on_the_two_services_ports_alone(machine: Machine) -> None:
    running = await machine.up()

    assert listening_ports(running.process.pid) == {machine.chat_port, machine.memory_port}


def listening_ports(pid: int) -> set[int]:
    """The TCP ports that process `pid` listens on, as Linux shows them (proc(5))."""
    targets = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    ours = {target.removeprefix("socket:[").removesuffix("]") for target in targets if target.startswith("socket:")}
    ports = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            if state == "0A" and rest[5] in ours:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
async def test_a_graceful_stop_ends_with_0(machine: Machine, client: Client, with_signal: signal.Signals) -> None:
    running = await machine.up()
    await client.say("Hi there")

    code = await running.stop(with_signal)

    assert code == 0
    assert "Traceback" not in "\n".join(running.err.all)


async def test_its_ports_are_free_again_after_a_stop(machine: Machine, client: Client) -> None:
    await (await machine.up()).stop()

    await machine.up()

    assert (await client.say("Hi there")).status_code == 200


async def test_history_and_memory_outlive_a_stop(machine: Machine, client: Client) -> None:
    running = await machine.up()
    await client.say("I live in Karachi.")
    await running.stop()
    await machine.up()

    reply = await client.say("Where do I live?")

    assert "Karachi" in reply.json()["reply"]


async def refusal(running: Everturn) -> str:
    """The one line with which a command refused to start."""
    await running.exit_code()
    told = [line for line in running.err.all if not line.startswith("{")]
    assert len(told) == 1, running.err.all
    assert "Traceback" not in told[0]
    return told[0]


async def test_a_taken_port_is_told_in_one_line(machine: Machine) -> None:
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", machine.chat_port)
    async with taken:
        running = await machine.run("up")

        told = await refusal(running)

    assert running.process.returncode == 1
    assert str(machine.chat_port) in told
    assert "EVERTURN_CHAT_PORT" in told


async def test_a_wrong_setting_is_told_in_one_line(machine: Machine) -> None:
    running = await machine.run("up", EVERTURN_REQUEST_WAIT_S="soon")

    assert "EVERTURN_REQUEST_WAIT_S" in await refusal(running)
    assert running.process.returncode == 2


async def test_a_folder_that_cannot_be_written_is_told_in_one_line(machine: Machine) -> None:
    (machine.folder / "a-file").write_text("not a folder")

    running = await machine.run("up", EVERTURN_DATA_DIR=str(machine.folder / "a-file" / "data"))

    assert "a-file" in await refusal(running)
    assert running.process.returncode == 1


async def test_a_second_process_on_the_same_folder_is_refused_before_its_ports_are(machine: Machine) -> None:
    first = await machine.up(EVERTURN_DATA_DIR=str(machine.folder / "data"))

    second = await machine.run("up", EVERTURN_DATA_DIR=str(machine.folder / "data"))

    told = await refusal(second)
    assert second.process.returncode == 1
    assert str(first.process.pid) in told
    assert "EVERTURN_DATA_DIR" in told


async def test_a_model_that_cannot_be_reached_is_a_warning(
    machine: Machine, client: Client, unused_tcp_port: int
) -> None:
    endpoint = f"http://127.0.0.1:{unused_tcp_port}/v1"

    running = await machine.up(EVERTURN_MODEL_BASE_URL=endpoint, EVERTURN_MODEL_NAME="far-away")

    told = await running.err.first(lambda line: line.startswith("warning: the model endpoint"))
    assert f" http://127.0.0.1:{unused_tcp_port} " in told
    assert "EVERTURN_MODEL_BASE_URL" in told
    assert (await client.http.get(f"{machine.chat_url}/readyz")).status_code == 200


async def test_a_proxy_that_cannot_be_reached_is_named_in_the_warning(machine: Machine, unused_tcp_port: int) -> None:
    proxy = f"http://me:canary-password@127.0.0.1:{unused_tcp_port}"
    running = await machine.up(
        EVERTURN_MODEL_BASE_URL="https://model.invalid/v1", EVERTURN_MODEL_NAME="m", HTTPS_PROXY=proxy
    )

    told = await running.err.first(lambda line: line.startswith("warning: the proxy"))

    assert f" 127.0.0.1:{unused_tcp_port} " in told
    assert "https://model.invalid:443" in told
    assert "canary" not in told


async def test_the_offline_demo_minds_no_proxy(machine: Machine, client: Client) -> None:
    await machine.up(ALL_PROXY="socks5://127.0.0.1:9")

    assert (await client.say("Hi there")).status_code == 200


async def test_nothing_that_was_said_is_in_the_output(machine: Machine, client: Client) -> None:
    running = await machine.up("--faults", GEMINI_API_KEY="")
    await client.say("the-canary is blue", headers={"Idempotency-Key": "k1"})
    await client.http.post(f"{machine.chat_url}/chat/", content=b'{"text": "the-canary')
    await client.http.post(f"{machine.memory_url}/conversations", json={"data": "the-canary"})

    await running.stop()

    assert "the-canary" not in "\n".join(running.out.all + running.err.all)


async def test_the_logs_are_json_where_nobody_looks(machine: Machine) -> None:
    running = await machine.up()
    await running.stop()

    stopped = await running.event("stopped")

    assert stopped["level"] == "info"
    assert all(line.startswith("{") for line in running.err.all)


async def test_a_sidecar_for_each_app_does_not_pass_over_what_was_said_before(machine: Machine) -> None:
    await (await machine.up()).stop()

    sidecar = await machine.run("runtime", "--app-id", "chat-service")

    assert "everturn.db" in await refusal(sidecar)
    assert sidecar.process.returncode == 1


async def test_only_events_of_the_level_that_is_set_are_logged(machine: Machine, client: Client) -> None:
    running = await machine.up(EVERTURN_LOG_LEVEL="WARN")
    await client.say("Hi there")

    assert await running.stop() == 0

    assert running.err.all == []


async def test_the_fault_switches_are_not_there_unless_asked_for(machine: Machine, client: Client) -> None:
    await machine.up()

    answers = [await client.switch(what, away=True) for what in ("memory", "broker")]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_a_fault_switch_refuses_a_wrong_body(machine: Machine, client: Client) -> None:
    await machine.up("--faults")

    for body in (b"", b"{", b"{}", b'{"away": "yes"}', b'{"away": 1}', b"[]"):
        answer = await client.http.post(
            f"{machine.memory_url}/faults/memory", content=body, headers={"content-type": "application/json"}
        )

        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


async def test_everything_can_be_imported_without_a_key_or_a_setting(machine: Machine) -> None:
    script = (
        "import importlib, pkgutil, everturn\n"
        "for module in pkgutil.walk_packages(everturn.__path__, 'everturn.'):\n"
        "    importlib.import_module(module.name)\n"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=machine.folder, env=machine.environment(), stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()

    assert process.returncode == 0, told.decode()


async def test_a_stop_while_a_browser_keeps_its_connection_is_quick_and_clean(machine: Machine) -> None:
    running = await machine.up()
    async with httpx2.AsyncClient(trust_env=False) as browser:
        await browser.get(f"{machine.chat_url}/")

        code = await running.stop()

    assert code == 0
    assert "ended_at_once" not in "\n".join(running.err.all)
