"""Users sign in at a real nginx in front, with the configuration of the how-to."""

import asyncio
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.e2e.conftest import SOURCE, Client, Machine

PAGE = SOURCE.parent / "docs" / "how-to" / "sign-in.md"
SECRET = "secret-of-the-proxy"
PATIENCE_S = 30


def require_nginx() -> str:
    """Where nginx is. Skips if it is missing; in CI that is a failure."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI"):
        pytest.fail("nginx is missing: `make test` installs it if apt does")
    if found is None:
        pytest.skip("nginx is missing: `make test` installs it if apt does")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(machine: Machine, port: int) -> str:
    """The server of the page, on free ports, without TLS, whose certificates nobody has here."""
    (server,) = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    server = re.sub(r"^ *ssl_\w+ .*\n", "", server, flags=re.MULTILINE)
    for text, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("/etc/nginx/everturn.users", str(machine.folder / "users")),
        ("the value of EVERTURN_PROXY_TOKEN", SECRET),
        ("127.0.0.1:8010", f"127.0.0.1:{machine.chat_port}"),
        ("127.0.0.1:8001", f"127.0.0.1:{machine.memory_port}"),
    ):
        assert text in server
        server = server.replace(text, here)
    folders = "".join(
        f"{what}_temp_path {machine.folder}/nginx;\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # otherwise its worker could not read the passwords
    main = f"{user}daemon off;\npid {machine.folder}/nginx.pid;\nevents {{}}\n"
    return f"{main}http {{\naccess_log off;\n{folders}{server}}}\n"


@pytest.fixture
async def proxy(machine: Machine) -> AsyncIterator[str]:
    """The address of nginx, which knows ann and bob, in front of a system that is not started yet."""
    nginx, port, file = require_nginx(), free_port(), machine.folder / "nginx.conf"
    (machine.folder / "users").write_text("ann:{PLAIN}of ann\nbob:{PLAIN}of bob\n")
    file.write_text(configuration(machine, port))
    process = await asyncio.create_subprocess_exec(
        nginx, "-e", "stderr", "-c", str(file), stderr=asyncio.subprocess.PIPE
    )
    try:
        await _listens(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0)
            else:
                writer.close()
                return


HOST = {"host": "chat.example.com"}
FORGED = {"x-forwarded-user": "ann", "x-everturn-proxy-token": SECRET, "dapr-api-token": SECRET}
ANN, BOB = ("ann", "of ann"), ("bob", "of bob")
CONVERSATION = "/conversations/a%2Fb%20c"


@pytest.fixture
async def through_proxy(machine: Machine, proxy: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the proxy, behind which the system runs."""
    machine.settings |= {
        "EVERTURN_AUTH": "header",
        "EVERTURN_PROXY_TOKEN": SECRET,
        "EVERTURN_ALLOWED_HOSTS": "chat.example.com",
    }
    await machine.up()
    async with httpx2.AsyncClient(base_url=proxy, headers=HOST, trust_env=False, timeout=PATIENCE_S) as http:
        yield http


async def turn_of_ann(http: httpx2.AsyncClient, client: Client) -> str:
    """The address of a turn of ann whose conversation is stored."""
    body = {"text": "My name is Ann", "metadata": {"session_id": "a/b c"}}
    reply = (await http.post("/chat/", json=body, auth=ANN)).json()
    assert reply["user_id"] == "ann"

    async def is_stored() -> bool:
        return bool((await http.get(CONVERSATION, auth=ANN)).json()["history"])

    await client.until(is_stored)
    return f"/turns/{reply['turn_id']}"


async def test_who_does_not_sign_in_at_nginx_gets_nothing(
    machine: Machine, client: Client, through_proxy: httpx2.AsyncClient
) -> None:
    turn = await turn_of_ann(through_proxy, client)

    refused = [
        (await through_proxy.get(turn)).status_code,
        (await through_proxy.get(turn, auth=("ann", "of bob"))).status_code,
        (await through_proxy.get(turn, headers=FORGED)).status_code,
        (await client.http.get(f"{machine.chat_url}{turn}", headers={"x-forwarded-user": "ann"})).status_code,
    ]

    assert refused == [401] * 4


async def test_who_signs_in_at_nginx_has_what_is_theirs_alone(
    client: Client, through_proxy: httpx2.AsyncClient
) -> None:
    turn = await turn_of_ann(through_proxy, client)

    async def statuses(user: tuple[str, str], headers: dict[str, str]) -> list[int]:
        paths = (turn, f"{turn}/events", "/memories/ann", "/turns?user_id=ann")
        return [(await through_proxy.get(path, auth=user, headers=headers)).status_code for path in paths]

    async def seen(path: str, user: tuple[str, str]) -> httpx2.Response:
        return await through_proxy.get(path, auth=user, headers=FORGED)

    assert await statuses(ANN, {}) == [200] * 4
    assert await statuses(BOB, {}) == await statuses(BOB, FORGED) == [404, 404, 403, 403]
    assert (await seen(CONVERSATION, BOB)).json() == {"history": []}
    assert [session["session_id"] for session in (await seen("/sessions", ANN)).json()["sessions"]] == ["a/b c"]
    assert (await seen("/sessions", BOB)).json() == {"sessions": []}
    assert "RUN_FINISHED" in (await seen(f"{turn}/events", ANN)).text
