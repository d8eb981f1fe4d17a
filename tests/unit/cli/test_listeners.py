"""Listening sockets: a port that cannot be had is told in one sentence that says what to do."""

import resource
import socket
from collections.abc import Iterator

import pytest

from everturn.cli.listeners import allow_many_connections, listen
from everturn.errors import SettingError, StartError


def test_a_free_port_is_listened_on() -> None:
    with listen("127.0.0.1", 0, "EVERTURN_CHAT_PORT") as listener:
        socket.create_connection(listener.getsockname(), timeout=5).close()


def test_a_taken_port_names_the_port_and_the_setting() -> None:
    with listen("127.0.0.1", 0, "EVERTURN_CHAT_PORT") as taken:
        port = taken.getsockname()[1]

        with pytest.raises(StartError, match=f"port {port} is taken.*EVERTURN_CHAT_PORT"):
            listen("127.0.0.1", port, "EVERTURN_CHAT_PORT")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "192.0.2.1"])
def test_a_host_that_is_not_of_this_machine_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(SettingError, match="EVERTURN_HOST"):
        listen(host, 0, "EVERTURN_CHAT_PORT")


def test_ipv6_can_be_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")

    with listen("::1", 0, "EVERTURN_CHAT_PORT") as listener:
        assert listener.family == socket.AF_INET6


@pytest.fixture
def few_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_open_files")
def test_more_connections_are_allowed_than_the_system_begins_with() -> None:
    allow_many_connections()

    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 512
