"""Faults of the machine under a real process: each is told plainly, or work goes on; what was acknowledged stays."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Everturn, Machine

ASYNC = {"Prefer": "respond-async"}
# Bytes: no file can be written beyond it. As a full disk, but for everybody's files.
_NO_ROOM = 1


@pytest.fixture
async def model(machine: Machine) -> AsyncIterator[ModelEndpoint]:
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": started.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        yield started


def fill_disk(running: Everturn) -> None:
    """From now on no write of the process to a file gets through."""
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (_NO_ROOM, hard))


def make_room(running: Everturn) -> None:
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


async def refusal(running: Everturn) -> str:
    """The one line with which it refused to start."""
    assert await running.exit_code() == 1
    assert len(running.err.all) == 1, "\n".join(running.err.all)
    return running.err.all[0]


def assert_plain(response: httpx2.Response, *statuses: int) -> None:
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text


async def stored(client: Client, *contents: str, session: str = "s1") -> None:
    """Return when these are in the history, in that order."""

    async def is_stored() -> bool:
        return [entry["content"] for entry in await client.history(session)] == list(contents)

    await client.until(is_stored)


async def ended(client: Client, turn_id: str) -> dict[str, Any]:
    async def has_ended() -> bool:
        return (await client.turn(turn_id))["status"] in ("completed", "failed", "cancelled")

    await client.until(has_ended)
    return await client.turn(turn_id)


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_was_acknowledged(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    running = await machine.up()
    before = await client.say("one", headers=key("k1"))
    await stored(client, "one", "hello")
    fill_disk(running)

    ready = await client.readiness()
    refused = await client.say("two", headers=key("k2"))
    looked_at = await client.turn(before.json()["turn_id"])
    make_room(running)
    ready_again = await client.readiness()
    after = await client.say("two", headers=key("k2"))
    again = await client.say("one", headers=key("k1"))

    assert_plain(refused, 503)
    assert "retry-after" in refused.headers
    assert looked_at["status"] == "completed"
    assert (ready, ready_again) == ((503, 503), (200, 200))
    assert after.status_code == 200, after.text
    assert again.json() == before.json()
    await stored(client, "one", "hello", "two", "hello")


async def test_a_turn_that_meets_a_full_disk_goes_on_when_there_is_room(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    release = asyncio.Event()
    model.script(Held(release, completion("paid for")))
    running = await machine.up()
    turn_id = (await client.say("one", headers=ASYNC)).json()["turn_id"]
    await model.asked(1)
    fill_disk(running)
    release.set()
    await running.event("step_attempt_failed", step="generate_response")

    make_room(running)
    turn = await ended(client, turn_id)

    assert turn["status"] == "completed"
    await stored(client, "one", turn["reply"]["reply"])


async def test_a_kill_on_a_full_disk_loses_nothing_acknowledged(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    first = await machine.up()
    before = await client.say("one", headers=key("k1"))
    fill_disk(first)
    await client.say("two", headers=key("k2"))
    await first.kill()

    await machine.up()
    again = await client.say("one", headers=key("k1"))
    second = await client.say("two", headers=key("k2"))

    assert again.json() == before.json()
    assert second.status_code == 200
    await stored(client, "one", "hello", "two", "hello")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; only root can mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def _fill(ballast: Path) -> None:
    """Write until the file system has no room left."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
    assert shutil.disk_usage(ballast).free == 0


async def test_a_file_system_without_space_is_told_and_work_goes_on_once_there_is_some(
    small_disk: Path, machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    await machine.up(EVERTURN_DATA_DIR=str(small_disk / "data"))
    before = await client.say("one", headers=key("k1"))
    await stored(client, "one", "hello")
    ballast = small_disk / "ballast"
    _fill(ballast)

    refused = await client.say("two" * 5_000, headers=key("k2"))
    ballast.unlink()
    after = await client.say("two", headers=key("k3"))
    again = await client.say("one", headers=key("k1"))

    assert_plain(refused, 503)
    assert after.status_code == 200, after.text
    assert again.json() == before.json()
    await stored(client, "one", "hello", "two", "hello")


async def test_a_file_that_is_no_database_is_told_in_one_line(machine: Machine) -> None:
    data = machine.folder / ".everturn"
    data.mkdir()
    (data / "everturn.db").write_bytes(b"not a database, but long enough to be taken for one" * 200)

    told = await refusal(await machine.run("up"))

    assert "everturn.db" in told


async def test_a_database_that_is_damaged_behind_its_first_page_is_told_in_one_line(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    running = await machine.up()
    await client.say("one", headers=key("k1"))
    await running.stop()
    file = machine.folder / ".everturn" / "everturn.db"
    damaged = bytearray(file.read_bytes())
    damaged[4096:] = b"\xa5" * (len(damaged) - 4096)
    file.write_bytes(damaged)

    told = await refusal(await machine.run("up"))

    assert ".everturn" in told
    assert "Traceback" not in told


async def test_a_read_only_folder_is_told_in_one_line(machine: Machine) -> None:
    data = machine.folder / "data"
    data.mkdir()
    data.chmod(0o500)
    folder = "/proc/everturn" if os.geteuid() == 0 else str(data)  # root may write everywhere else

    told = await refusal(await machine.run("up", EVERTURN_DATA_DIR=folder))

    assert "EVERTURN_DATA_DIR" in told


async def test_a_second_start_on_the_same_folder_leaves_the_first_alone(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    first = await machine.up()
    before = await client.say("one", headers=key("k1"))

    second = await machine.run("up", EVERTURN_CHAT_PORT="18010", EVERTURN_MEMORY_PORT="18001")
    told = await refusal(second)
    again = await client.say("one", headers=key("k1"))

    assert str(first.process.pid) in told
    assert again.json() == before.json()


async def connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


def post(text: str, session: str) -> bytes:
    body = json.dumps({"user_id": "junaid", "text": text, "metadata": {"session_id": session}}).encode()
    headers = f"host: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    head = f"POST /chat/ HTTP/1.1\r\n{headers}\r\n\r\n"
    return head.encode() + body


async def test_a_client_that_goes_away_loses_no_turn(machine: Machine, client: Client, model: ModelEndpoint) -> None:
    release = asyncio.Event()
    model.script(Held(release, completion("nobody waits")))
    await machine.up()
    _, writer = await connection(machine.chat_port)
    writer.write(post("one", "s1"))
    await model.asked(1)
    writer.transport.abort()
    release.set()

    await stored(client, "one", "nobody waits")


async def test_clients_that_send_half_a_request_keep_nobody_waiting(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    await machine.up()
    slow = [await connection(machine.chat_port) for _ in range(50)]
    for _, writer in slow:
        writer.write(post("half", "s2")[:-5])
        await writer.drain()

    response = await client.say("one")

    assert response.status_code == 200
    for _, writer in slow:
        writer.transport.abort()
    assert await client.history("s2") == []


async def test_a_client_that_reads_nothing_keeps_nobody_waiting(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    await machine.up()
    long = "x" * 30_000
    for _ in range(20):
        await client.say(long)
    slow = [await connection(machine.memory_port) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"GET /conversations/s1 HTTP/1.1\r\nhost: localhost\r\n\r\n" * 10)
        await writer.drain()

    response = await client.say("one", session="s2")

    assert response.status_code == 200
    await stored(client, "one", "hello", session="s2")
    for _, writer in slow:
        writer.transport.abort()


async def test_a_clean_stop_after_clients_that_read_nothing(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    running = await machine.up(EVERTURN_SHUTDOWN_S="2")
    await client.say("x" * 30_000)
    _, writer = await connection(machine.memory_port)
    writer.write(b"GET /conversations/s1 HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200)
    await writer.drain()

    code = await running.stop(signal.SIGTERM)

    assert code == 0
    writer.transport.abort()


async def test_a_reply_of_10_mb_fails_its_turn_plainly_and_lets_the_next_one_go(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    model.script(completion("x" * 10_000_000))
    await machine.up()

    failed = await client.say("one")
    next_one = await client.say("two")

    assert_plain(failed, 502)
    assert failed.json()["step"] == "generate_response"
    assert next_one.status_code == 200
    await stored(client, "two", "hello")


async def test_a_text_at_the_limit_is_kept_exactly_and_one_more_character_is_refused(
    machine: Machine, client: Client, model: ModelEndpoint
) -> None:
    await machine.up()
    longest = "\N{GRINNING FACE}" * 32_000

    taken = await client.say(longest)
    refused = await client.say(longest + "x")

    assert taken.status_code == 200
    assert_plain(refused, 413)
    await stored(client, longest, "hello")


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": "junaid", "text": "\xff\xfe"}',
        b'{"user_id": "junaid", "text": "\xc3"}',
        b'{"user_id": "junaid", "text": "\\ud800"}',
        b'{"user_id": "junaid", "text": "a\\u0000b"}',
        b'{"user_id": "jun\xffaid", "text": "Hi"}',
        '{"user_id": "junaid", "text": "Hi"}'.encode("utf-16"),
    ],
)
async def test_broken_utf_8_is_refused_plainly(
    machine: Machine, client: Client, model: ModelEndpoint, body: bytes
) -> None:
    await machine.up()

    headers = {"content-type": "application/json"}
    refused = await client.http.post(f"{machine.chat_url}/chat/", content=body, headers=headers)

    assert_plain(refused, 422)
    assert model.requests == []
