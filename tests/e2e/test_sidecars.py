"""A runtime for each app, as with `dapr run`: our services under uvicorn, and any program of the SDK."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from dataclasses import dataclass, field

import httpx2
import pytest

from tests.e2e.conftest import Client, Everturn, Machine, free_ports

CHAT, MEMORY = "chat-service", "agent-memory-service"
APPS = {CHAT: "everturn.chat.app:app", MEMORY: "everturn.memory.app:app"}
# What holds a turn in its first step for as long as the memory service is away.
HOLD_IN_FETCH = {"EVERTURN_FETCH_ATTEMPTS": "1000", "EVERTURN_FETCH_MAX_DELAY_S": "0.2"}


@dataclass
class Sidecars:
    """Both services and a runtime for each: four processes, by name; each can be killed and started again."""

    machine: Machine
    ports: dict[str, tuple[int, int]] = field(default_factory=dict)
    running: dict[str, Everturn] = field(default_factory=dict)

    def port_of(self, app_id: str) -> int:
        return self.machine.chat_port if app_id == CHAT else self.machine.memory_port

    async def start_runtime(self, app_id: str) -> None:
        if app_id not in self.ports:
            http_port, grpc_port = free_ports(2)
            self.ports[app_id] = (http_port, grpc_port)
        http_port, grpc_port = self.ports[app_id]
        running = await self.machine.run(
            "runtime",
            *("--app-id", app_id, "--app-port", str(self.port_of(app_id))),
            *("--dapr-http-port", str(http_port), "--dapr-grpc-port", str(grpc_port)),
        )
        await running.out.first(lambda line: line.startswith("data folder"))
        self.running[f"runtime of {app_id}"] = running

    async def start_service(self, app_id: str) -> None:
        http_port, grpc_port = self.ports[app_id]
        running = await self.machine.run(
            *(APPS[app_id], "--port", str(self.port_of(app_id)), "--log-level", "warning"),
            module="uvicorn",
            DAPR_HTTP_PORT=str(http_port),
            DAPR_GRPC_PORT=str(grpc_port),
        )
        self.running[app_id] = running

    async def start_all(self) -> None:
        for app_id in APPS:
            await self.start_runtime(app_id)
            await self.start_service(app_id)

    async def kill(self, name: str) -> None:
        await self.running[name].kill()

    async def stop_all(self) -> dict[str, int]:
        return {name: await running.stop() for name, running in reversed(self.running.items())}


async def until_ready(client: Client, *urls: str) -> None:
    async def ready() -> bool:
        try:
            return all([(await client.http.get(f"{url}/readyz")).status_code == 200 for url in urls])
        except httpx2.TransportError:
            return False

    await client.until(ready)


async def test_a_runtime_is_healthy_once_its_app_listens(machine: Machine, client: Client) -> None:
    sidecars = Sidecars(machine)
    await sidecars.start_runtime("mine")
    health = f"http://127.0.0.1:{sidecars.ports['mine'][0]}/v1.0/healthz"
    before = await client.http.get(health)
    outbound = await client.http.get(f"{health}/outbound")

    async def is_healthy() -> bool:
        return (await client.http.get(health)).status_code == 204

    with socket.create_server(("127.0.0.1", machine.memory_port)):
        await client.until(is_healthy)

    assert (before.status_code, before.json()["errorCode"]) == (500, "ERR_HEALTH_NOT_READY")
    assert outbound.status_code == 204
    assert await is_healthy(), "as on Dapr, once is enough"


async def test_two_runtimes_and_two_services_answer_and_remember(machine: Machine, client: Client) -> None:
    sidecars = Sidecars(machine)
    await sidecars.start_all()
    await until_ready(client, machine.chat_url, machine.memory_url)

    first = await client.say("My name is Nadia")
    second = await client.say("What is my name?")

    async def all_stored() -> bool:
        return len(await client.history()) == 4

    await client.until(all_stored)
    codes = await sidecars.stop_all()
    assert first.status_code == 200
    assert "Nadia" in second.json()["reply"]
    assert second.json()["degraded"] == []
    assert {name: code for name, code in codes.items() if name.startswith("runtime")} == {
        f"runtime of {CHAT}": 0,
        f"runtime of {MEMORY}": 0,
    }


async def test_a_turn_survives_the_kill_of_each_of_the_four(machine: Machine, client: Client) -> None:
    machine.settings.update(HOLD_IN_FETCH)
    sidecars = Sidecars(machine)
    await sidecars.start_all()
    await until_ready(client, machine.chat_url, machine.memory_url)
    await client.say("Hello", session="before")
    await sidecars.kill(MEMORY)
    turn_id = (await client.say("Hello again", headers={"Prefer": "respond-async"})).json()["turn_id"]

    async def is_in_its_first_step() -> bool:
        return any(step["attempts"] > 0 for step in (await client.turn(turn_id))["steps"])

    await client.until(is_in_its_first_step)
    for app_id in APPS:
        await sidecars.kill(f"runtime of {app_id}")
        await sidecars.start_runtime(app_id)
    await sidecars.kill(CHAT)
    await sidecars.start_service(CHAT)
    await until_ready(client, machine.chat_url)
    between = await client.turn(turn_id)
    await sidecars.start_service(MEMORY)

    async def has_ended() -> bool:
        return (await client.turn(turn_id))["status"] in ("completed", "failed")

    await client.until(has_ended)
    after = await client.turn(turn_id)

    async def is_stored_once() -> bool:
        return len(await client.history()) == 2

    await client.until(is_stored_once)
    await sidecars.stop_all()
    assert between["status"] == "running"
    assert after["status"] == "completed"
    assert after["reply"]["degraded"] == []


PROGRAM = """
import json, os, sys
from dapr.clients import DaprClient
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime

runtime = WorkflowRuntime()

@runtime.workflow(name="greets")
def greets(ctx, name):
    return (yield ctx.call_activity(greet, input=name))

@runtime.activity(name="greet")
def greet(ctx, name):
    with DaprClient() as client:
        client.save_state("statestore", "greeted", name)
    return "hello " + name

runtime.start()
client = DaprWorkflowClient()
instance = client.schedule_new_workflow(greets, input="you")
state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
with DaprClient() as dapr:
    saved = dapr.get_state("statestore", "greeted").data.decode()
runtime.shutdown()
print(json.dumps([state.serialized_output, saved, os.environ["APP_ID"]]), flush=True)
sys.exit(int(sys.argv[1]))
"""


SECRETS = """
import json
from dapr.clients import DaprClient

with DaprClient() as client:
    print(json.dumps(client.get_bulk_secret("secretstore").secrets), flush=True)
"""

CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: mine}
spec:
  tracing: {samplingRate: "1"}
  secrets: {scopes: [{storeName: secretstore, defaultAccess: deny, allowedSecrets: [MINE]}]}
"""


async def test_a_configuration_says_which_secrets_an_app_may_have(machine: Machine) -> None:
    (machine.folder / "ask.py").write_text(SECRETS, "utf-8")
    (machine.folder / "configuration.yaml").write_text(CONFIGURATION, "utf-8")

    running = await machine.run(
        *("runtime", "--app-id", "mine", "--config", "configuration.yaml", "--", sys.executable, "ask.py"),
        MINE="yes",
        THEIRS="no",
    )
    said = await running.out.first(lambda line: line.startswith("{"))

    assert json.loads(said) == {"MINE": {"MINE": "yes"}}
    assert (await running.event("configuration_ignored"))["what"] == "tracing"
    assert await running.exit_code() == 0


SHOUTS = """
import signal, sys
from dapr.ext.workflow import WorkflowRuntime

runtime = WorkflowRuntime()

@runtime.activity(name="shout")
def shout(ctx, text):
    return text.upper()

@runtime.workflow(name="shouts")
def shouts(ctx, text):
    return (yield ctx.call_activity(shout, input=text + "!"))

runtime.start()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
"""

ASKS = """
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime

runtime = WorkflowRuntime()

@runtime.workflow(name="asks")
def asks(ctx, text):
    one = yield ctx.call_activity("shout", input=text, app_id="shouter")
    two = yield ctx.call_child_workflow("shouts", input=text, app_id="shouter")
    return one + " " + two

runtime.start()
client = DaprWorkflowClient()
instance = client.schedule_new_workflow(asks, input="hello")
print("said " + client.wait_for_workflow_completion(instance, timeout_in_seconds=60).serialized_output, flush=True)
instance = client.schedule_new_workflow("shouts", input="there", app_id="shouter")
state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60, app_id="shouter")
print("then " + state.serialized_output, flush=True)
runtime.shutdown()
"""


async def test_workflows_use_the_code_of_an_app_with_another_runtime(machine: Machine) -> None:
    (machine.folder / "shouts.py").write_text(SHOUTS, "utf-8")
    (machine.folder / "asks.py").write_text(ASKS, "utf-8")
    shouter = await machine.run("runtime", "--app-id", "shouter", "--", sys.executable, "shouts.py")
    await shouter.out.first(lambda line: line.startswith("data folder"))

    asker = await machine.run("runtime", "--app-id", "asker", "--", sys.executable, "asks.py")
    said = await asker.out.first(lambda line: line.startswith("said"))
    then = await asker.out.first(lambda line: line.startswith("then"))

    assert said == 'said "HELLO HELLO!"'
    assert then == 'then "THERE!"'
    assert (await asker.exit_code(), await shouter.stop()) == (0, 0)


@pytest.mark.parametrize("code", [0, 7])
async def test_any_program_of_the_sdk_runs_beside_its_runtime_which_ends_as_it_ends(
    machine: Machine, code: int
) -> None:
    (machine.folder / "program.py").write_text(PROGRAM, "utf-8")

    running = await machine.run("runtime", "--app-id", "mine", "--", sys.executable, "program.py", str(code))
    said = await running.out.first(lambda line: line.startswith("["))

    assert said == '["\\"hello you\\"", "you", "mine"]'
    assert await running.exit_code() == code


async def test_the_flags_of_dapr_run_are_understood(machine: Machine) -> None:
    told = ("APP_ID", "APP_PORT", "APP_PROTOCOL", "DAPR_HTTP_PORT", "DAPR_GRPC_PORT")
    (machine.folder / "program.py").write_text(f"import os\nprint([os.environ[name] for name in {told}])", "utf-8")
    (machine.folder / "parts").mkdir()
    (machine.folder / "c.yaml").write_text("kind: Configuration", "utf-8")
    http_port, grpc_port = (str(port) for port in free_ports(2))

    running = await machine.run(
        *("runtime", "--app-id", "mine", "--app-port", "5000", "--app-protocol", "grpc", "-H", http_port),
        *("-G", grpc_port, "-d", "parts", "-c", "c.yaml", "--log-level", "error"),
        *("--", sys.executable, "program.py", "--app-port", "7"),
    )

    assert await running.exit_code() == 0
    assert running.out.all[-1] == str(["mine", "5000", "grpc", http_port, grpc_port])
    assert running.err.all == []


async def test_what_a_sidecar_refuses_is_counted_on_its_port_for_metrics(machine: Machine, client: Client) -> None:
    http_port, grpc_port, metrics_port = free_ports(3)
    ports = ["-H", str(http_port), "-G", str(grpc_port), "--metrics-port", str(metrics_port)]
    running = await machine.run("runtime", "--app-id", "mine", *ports)
    await running.out.first(lambda line: line.startswith("data folder"))

    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(b"this is no request\r\n\r\n")
    answer = await reader.read()
    writer.close()
    _, of_grpc = await asyncio.open_connection("127.0.0.1", grpc_port)
    metrics = await client.http.get(f"http://127.0.0.1:{metrics_port}/metrics")
    of_grpc.close()
    elsewhere = await client.http.get(f"http://127.0.0.1:{metrics_port}/v1.0/metadata")

    assert answer.split()[1] == b"400"
    assert 'everturn_connections_refused_total{reason="malformed"} 1.0' in metrics.text
    assert "everturn_grpc_connections 1.0" in metrics.text
    assert elsewhere.status_code == 404
    assert await running.stop() == 0


async def test_a_command_ends_with_its_runtime(machine: Machine) -> None:
    (machine.folder / "program.py").write_text("import signal; print('up', flush=True); signal.pause()", "utf-8")
    running = await machine.run("runtime", "--app-id", "mine", "--", "sh", "-c", f"{sys.executable} program.py; true")
    await running.out.first(lambda line: line == "up")

    # What it waits for is the end of the output too, which all three write to.
    code = await running.stop(signal.SIGINT)

    assert code == 0


PARENT_AND_CHILD = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("pids", os.getpid(), child.pid, flush=True)
signal.pause()
"""


async def test_a_command_and_what_it_started_end_with_a_runtime_that_is_killed(
    machine: Machine, client: Client
) -> None:
    (machine.folder / "program.py").write_text(PARENT_AND_CHILD, "utf-8")
    running = await machine.run("runtime", "--app-id", "mine", "--", sys.executable, "program.py")
    said = await running.out.first(lambda line: line.startswith("pids"))
    pids = [int(pid) for pid in said.split()[1:]]

    running.process.kill()

    async def both_have_ended() -> bool:
        return not any([await is_running(pid) for pid in pids])

    try:
        await client.until(both_have_ended)
    finally:
        for pid in pids:
            if await is_running(pid):
                os.kill(pid, signal.SIGKILL)


async def is_running(pid: int) -> bool:
    """Not so for what has ended and is waited for by nobody yet."""
    ps = await asyncio.create_subprocess_exec("ps", "-o", "stat=", "-p", str(pid), stdout=asyncio.subprocess.PIPE)
    state, _ = await ps.communicate()
    return bool(state.strip()) and not state.startswith(b"Z")


async def test_a_command_that_cannot_be_run_is_refused_in_one_line(machine: Machine) -> None:
    running = await machine.run("runtime", "--app-id", "mine", "--", "no-such-program")

    assert await running.exit_code() == 1
    assert "no-such-program" in running.err.all[-1]


async def test_a_second_runtime_of_an_app_is_refused(machine: Machine) -> None:
    first = await machine.run("runtime", "--app-id", "mine")
    await first.out.first(lambda line: line.startswith("data folder"))

    second = await machine.run("runtime", "--app-id", "mine")

    assert await second.exit_code() == 1
    assert await first.stop() == 0
    assert re.search("in use by process", second.err.all[-1])


async def test_a_taken_grpc_port_is_refused_in_one_line(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        running = await machine.run("runtime", "--app-id", "mine", "--dapr-grpc-port", str(port))

        assert await running.exit_code() == 1
    (line,) = running.err.all
    assert str(port) in line
