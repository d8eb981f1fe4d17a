"""The processes behind `make up-dapr`: whatever happens at their start, none of them is left."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.dapr.build import binaries_folder
from tools.dapr.layout import Layout, free_ports
from tools.dapr.process import Process
from tools.dapr.system import DaprSystem, StoppedError, SystemFailedError

from tests.conformance.systems import ROOT
from tests.real_dapr import require_dapr


@pytest.fixture
def started() -> list[Process]:
    """Every process that the system has started, in order."""
    return []


@pytest.fixture
def system(tmp_path: Path, started: list[Process]) -> Iterator[DaprSystem]:
    """A system with components of its own, which a test may spoil."""
    require_dapr()
    shutil.copytree(ROOT / "components", tmp_path / "components")
    layout = Layout(tmp_path / "data", free_ports(), binaries_folder(), tmp_path / "components")
    made = DaprSystem(layout, told=started.append)
    yield made
    made.stop()


def lives(process: Process) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_stop_leaves_no_process(system: DaprSystem, started: list[Process]) -> None:
    system.start()

    system.stop()

    assert [process.command.name for process in started] == [
        "redis", "placement", "scheduler", "memory", "chat", "memory-sidecar", "chat-sidecar",
    ]  # fmt: skip
    assert [process for process in started if lives(process)] == []


def test_a_process_that_dies_at_the_start_is_named_and_nothing_is_left(
    system: DaprSystem, started: list[Process]
) -> None:
    statestore = system.layout.components / "statestore.yaml"
    statestore.write_text(statestore.read_text("utf-8").replace("state.redis", "state.nothing"), "utf-8")

    with pytest.raises(SystemFailedError) as raised:
        system.start()
    system.stop()

    assert "memory-sidecar has ended" in str(raised.value)
    assert [process for process in started if lives(process)] == []


def test_a_start_can_be_broken_off(system: DaprSystem, started: list[Process]) -> None:
    system.stopping = threading.Event()
    system.stopping.set()

    with pytest.raises(StoppedError):
        system.start()
    system.stop()

    assert started
    assert [process for process in started if lives(process)] == []


def test_no_password_or_token_is_readable_by_others(system: DaprSystem) -> None:
    system.settings = {"APP_API_TOKEN": "token-of-the-app", "DAPR_API_TOKEN": "token-of-the-sidecar"}
    system.start()

    password = (system.layout.folder / "redis.password").read_text("utf-8")

    assert (system.layout.folder.stat().st_mode & 0o077) == 0
    logs = "".join(path.read_text("utf-8", "replace") for path in system.layout.logs.iterdir())
    assert [secret for secret in (password, *system.settings.values()) if secret in logs] == []
