"""The model's client goes by the proxy of the environment, over real sockets."""

from pathlib import Path

import pytest

from everturn.errors import SettingError, TransientError
from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.assistants import KEY, MEMORY, PROMPT, assistant_at
from tests.e2e.conftest import free_ports
from tests.e2e.proxies import proxy_to, tls_front

# A name that no resolver knows: only a proxy reaches it.
NAME = "model.invalid"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_an_endpoint_is_reached_by_the_proxy_of_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelEndpoint(completion("Hello!")) as endpoint, proxy_to(endpoint.port) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")

        async with assistant_at(f"http://{NAME}/v1") as assistant:
            reply = await assistant.reply(MEMORY, [], PROMPT)

    assert reply == "Hello!"
    assert proxy.asked == [f"POST http://{NAME}/v1/chat/completions HTTP/1.1"]
    assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_an_endpoint_with_tls_is_reached_through_a_tunnel_that_hides_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "certificate.pem"
    async with (
        ModelEndpoint(completion("Hello!")) as endpoint,
        tls_front(endpoint.port, NAME, certificate) as tls_port,
        proxy_to(tls_port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async with assistant_at(f"https://{NAME}/v1") as assistant:
            reply = await assistant.reply(MEMORY, [], PROMPT)

    assert reply == "Hello!"
    assert proxy.asked == [f"CONNECT {NAME}:443 HTTP/1.1"]


@pytest.mark.parametrize(("credentials", "is_let_in"), [("me:right", True), ("me:wrong", False)])
async def test_a_proxy_is_shown_the_credentials_of_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: str, is_let_in: bool
) -> None:
    certificate = tmp_path / "certificate.pem"
    async with (
        ModelEndpoint(completion("Hello!")) as endpoint,
        tls_front(endpoint.port, NAME, certificate) as tls_port,
        proxy_to(tls_port, "me:right") as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{credentials}@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async with assistant_at(f"https://{NAME}/v1") as assistant:
            if is_let_in:
                assert await assistant.reply(MEMORY, [], PROMPT) == "Hello!"
                return
            with pytest.raises(TransientError) as refused:
                await assistant.reply(MEMORY, [], PROMPT)

    assert refused.value.kind == "proxy"
    assert "HTTPS_PROXY" in refused.value.message
    assert "wrong" not in refused.value.message
    assert endpoint.requests == []


@pytest.mark.parametrize("no_proxy", ["*", NAME, ".invalid", f"other.example, {NAME}:80"])
async def test_no_proxy_names_what_is_reached_without_one(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelEndpoint() as endpoint, proxy_to(endpoint.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", no_proxy)

        async with assistant_at(f"http://{NAME}/v1") as assistant:
            with pytest.raises(TransientError) as refused:
                await assistant.reply(MEMORY, [], PROMPT)

    assert refused.value.kind == "unreachable"
    assert proxy.asked == []


async def test_an_endpoint_on_this_machine_needs_no_exception_from_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")

    async with ModelEndpoint(completion("Hello!")) as endpoint, assistant_at(endpoint.base_url) as assistant:
        assert await assistant.reply(MEMORY, [], PROMPT) == "Hello!"


async def test_a_proxy_that_does_not_answer_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")

    async with assistant_at(f"https://{NAME}/v1") as assistant:
        with pytest.raises(TransientError) as refused:
            await assistant.reply(MEMORY, [], PROMPT)

    assert refused.value.kind == "unreachable"


async def test_a_proxy_of_another_kind_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:canary-password@127.0.0.1:9")

    with pytest.raises(SettingError) as refused:
        async with assistant_at(f"https://{NAME}/v1"):
            pass

    assert "ALL_PROXY" in refused.value.message
    assert "canary" not in refused.value.message
