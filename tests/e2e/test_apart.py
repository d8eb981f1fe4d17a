"""Each service on its own, under uvicorn."""

import signal
import subprocess
import sys

import httpx2
import pytest

from tests.e2e.conftest import Client, Machine, free_ports

SERVICES = ("everturn.chat.app:app", "everturn.memory.app:app")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_wrong_setting_ends_a_service_with_2_and_one_line(machine: Machine, service: str) -> None:
    assert_refused(machine, service, "EVERTURN_REQUEST_WAIT_S", EVERTURN_REQUEST_WAIT_S="soon")


async def test_a_proxy_that_no_model_is_reached_by_ends_a_service_with_2_and_one_line(machine: Machine) -> None:
    given = {"GEMINI_API_KEY": "canary-key", "ALL_PROXY": "socks5://me:canary-password@127.0.0.1:9"}

    told = assert_refused(machine, "everturn.chat.app:app", "ALL_PROXY", **given)

    assert "canary" not in told


def assert_refused(machine: Machine, service: str, names: str, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", service, "--port", str(machine.chat_port)],
        cwd=machine.folder,
        env=machine.environment() | settings,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert names in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    return done.stderr


async def answers(client: Client, url: str) -> bool:
    try:
        await client.http.get(url)
    except httpx2.TransportError:
        return False
    return True


@pytest.mark.parametrize(
    "command", [("serve", "chat"), ("everturn.chat.app:app", "--log-level", "warning")], ids=["serve", "uvicorn"]
)
async def test_a_service_says_that_its_sidecar_is_missing_and_that_it_came(
    machine: Machine, client: Client, command: tuple[str, ...]
) -> None:
    http_port, grpc_port = free_ports(2)
    ports = {"DAPR_HTTP_PORT": str(http_port), "DAPR_GRPC_PORT": str(grpc_port)}
    module = "everturn.cli" if command[0] == "serve" else "uvicorn"
    at = () if module == "everturn.cli" else ("--port", str(machine.chat_port))
    service = await machine.run(*command, *at, module=module, **ports)

    missing = await service.event("sidecar_missing")
    await client.until(lambda: answers(client, machine.chat_url))
    unready = await client.http.get(f"{machine.chat_url}/readyz")
    refused = await client.say("Hi there")
    runtime = await machine.run(
        "runtime", "--app-id", "chat-service", "--app-port", str(machine.chat_port),
        "-H", str(http_port), "-G", str(grpc_port),
    )  # fmt: skip
    await service.event("sidecar_found")
    await runtime.kill()

    async def is_missed_again() -> bool:
        ready = await client.http.get(f"{machine.chat_url}/readyz")
        return ready.status_code == 503 and sum('"sidecar_missing"' in line for line in service.err.all) == 2

    await client.until(is_missed_again)
    code = await service.stop()

    assert missing["advice"] == f"no sidecar at 127.0.0.1:{grpc_port}: start `everturn runtime`, or Dapr's"
    for answer in (unready, refused):
        assert answer.status_code == 503
        assert f"no sidecar at 127.0.0.1:{http_port}: start `everturn runtime`" in answer.json()["detail"]
    assert code in (0, -signal.SIGTERM), "uvicorn ends by the signal itself"
    assert [line for line in service.err.all if "library log" in line] == []


async def test_a_port_for_metrics_gives_them_and_nothing_else(machine: Machine, client: Client) -> None:
    (port,) = free_ports(1)
    metrics = f"http://127.0.0.1:{port}"
    service = await machine.run("serve", "memory", EVERTURN_METRICS_PORT=str(port), APP_API_TOKEN="canary-token")
    await client.until(lambda: answers(client, machine.memory_url))

    alone, guarded = [await client.http.get(f"{url}/metrics") for url in (metrics, machine.memory_url)]
    others = [await client.http.get(f"{metrics}{path}") for path in ("/", "/memories/junaid", "/healthz")]

    assert (alone.status_code, guarded.status_code) == (200, 401)
    assert "everturn_events_total" in alone.text
    assert [answer.status_code for answer in others] == [404, 404, 404]
    assert await service.stop() == 0
