import asyncio
import gc
import resource
import socket
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from everturn.cli.process import allow_many_connections, check_who_may_call, freeze_gc, listen
from everturn.errors import SettingError, StartError
from everturn.settings import Settings


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.disable()  # as a start is
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


async def test_a_start_ends_with_the_collector_on_and_what_was_made_passed_over() -> None:
    freeze_gc()

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


async def test_while_workflows_are_resumed_no_garbage_is_looked_for_and_afterwards_it_is() -> None:
    freeze_gc(resumed=3)
    at_first = gc.isenabled()

    async with asyncio.timeout(20):
        while not gc.isenabled():  # noqa: ASYNC110 - the collector has no event
            await asyncio.sleep(0)

    assert not at_first


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


ELSEWHERE = ("0.0.0.0", "::", "192.0.2.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_on_loopback_nobody_needs_to_sign_in(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_who_may_call(Settings(_env_file=None, host=host))

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("host", ELSEWHERE)
def test_beyond_loopback_a_start_that_does_not_say_who_may_call_is_refused(host: str) -> None:
    with pytest.raises(SettingError, match=f"EVERTURN_HOST is '{host}'.*EVERTURN_AUTH"):
        check_who_may_call(Settings(_env_file=None, host=host))


@pytest.mark.parametrize("host", ELSEWHERE)
def test_that_anybody_may_call_is_taken_and_warned_of(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_who_may_call(Settings(_env_file=None, host=host, auth="none"))

    assert capsys.readouterr().err.startswith("warning: EVERTURN_AUTH is none")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_beyond_loopback_users_who_sign_in_may_call(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_who_may_call(Settings(_env_file=None, host=host, auth="header", proxy_token=SecretStr("secret")))

    assert capsys.readouterr().err == ""


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
