"""A running system on free ports, and programs of Node against it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Machine, machine  # noqa: F401 - a fixture
from tests.e2e.javascript_sdk import node_modules

_PROGRAMS = Path(__file__).parent
# For what hangs, not a measure.
PATIENCE_S = 90.0

RunNode = Callable[..., Awaitable[Any]]


@pytest.fixture
async def endpoint(machine: Machine) -> AsyncIterator[ModelEndpoint]:  # noqa: F811
    """The model of the system; what is not scripted fails."""
    async with ModelEndpoint() as started:
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": started.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        yield started


@pytest.fixture
def node(tmp_path: Path) -> RunNode:
    """Runs a program of this folder beside its packages; what it prints behind RESULTS."""

    async def run(program: str, *arguments: str) -> Any:
        folder = tmp_path / "node"
        folder.mkdir(exist_ok=True)
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(node_modules(_PROGRAMS))
        (folder / program).write_text((_PROGRAMS / program).read_text())
        process = await asyncio.create_subprocess_exec(
            "node",
            str(folder / program),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        (said,) = [line for line in out.decode().splitlines() if line.startswith("RESULTS ")]
        return json.loads(said.removeprefix("RESULTS "))

    return run
