"""Each service on its own, under uvicorn."""

import subprocess
import sys

import pytest

from tests.e2e.conftest import Machine

SERVICES = ("everturn.chat.app:app", "everturn.memory.app:app")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_wrong_setting_ends_a_service_with_2_and_one_line(machine: Machine, service: str) -> None:
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        [sys.executable, "-m", "uvicorn", service, "--port", str(machine.chat_port)],
        cwd=machine.folder,
        env=machine.environment() | {"EVERTURN_REQUEST_WAIT_S": "soon"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "EVERTURN_REQUEST_WAIT_S" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
