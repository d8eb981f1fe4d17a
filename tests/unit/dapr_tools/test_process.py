"""A process that a system starts: it ends when asked to, and with its starter."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools.dapr.process import Command, Process, start

ROOT = Path(__file__).parent.parent.parent.parent
# Far longer than anything here takes: a limit for what hangs, not a measure.
PATIENCE_S = 30.0
OBEDIENT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
signal.pause()
"""
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
STARTER = """
import os, signal, sys
from pathlib import Path
from tools.dapr.process import Command, start
command = Command("child", [sys.executable, "-c", "import signal; signal.pause()"], os.environ, "nowhere")
print(start(command, Path(sys.argv[1]), Path(sys.argv[1])).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def running(folder: Path, script: str, stop_s: float) -> Iterator[Process]:
    """`script` as a process, once it is up."""
    process = start(
        Command("script", [sys.executable, "-c", script], os.environ.copy(), "nowhere", stop_s), folder, folder
    )
    try:
        while "up" not in process.last_lines():
            assert not process.has_ended
        yield process
    finally:
        process.kill()


@pytest.fixture
def obedient(tmp_path: Path) -> Iterator[Process]:
    with running(tmp_path, OBEDIENT, PATIENCE_S) as process:
        yield process


def test_a_stop_lets_a_process_end_by_itself(obedient: Process) -> None:
    obedient.stop()

    assert obedient.exit_code == 7


def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, DEAF, 0.01) as deaf:
        deaf.stop()

        assert deaf.exit_code == -signal.SIGKILL


def test_a_ctrl_c_at_the_terminal_does_not_reach_a_process(obedient: Process) -> None:
    assert os.getpgid(obedient.pid) == obedient.pid != os.getpgrp()


def test_what_a_process_writes_is_in_its_log(obedient: Process) -> None:
    assert obedient.log.read_text("utf-8") == "up\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_ends_with_its_starter(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )

    assert starter.returncode == -signal.SIGKILL, starter.stderr
    assert ends(int(starter.stdout)), "the child lives on"


def ends(pid: int) -> bool:
    """Whether the process ends; one that does not is ended here."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended = bool(select.select([handle], [], [], PATIENCE_S)[0])
        if not ended:
            os.kill(pid, signal.SIGKILL)
        return ended
    finally:
        os.close(handle)
