"""Requests that Schemathesis makes from the API documents, against a running system: none is answered by a 5xx, and
every answer is as its document says (https://schemathesis.readthedocs.io).
"""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Machine

_TOKEN = "of-the-sidecar"
_RULES = Path(__file__).with_name("schemathesis.toml")
# For what hangs, not a measure.
_LIMIT_S = 300


@pytest.mark.parametrize("service", ["chat", "memory"])
async def test_every_answer_is_as_the_document_says(machine: Machine, service: str) -> None:
    await machine.up(APP_API_TOKEN=_TOKEN)
    url = machine.chat_url if service == "chat" else machine.memory_url
    program = Path(sys.executable).with_name("schemathesis")
    arguments = ["--config-file", str(_RULES), "run", f"{url}/openapi.json", "--no-color"]
    caller = f"--header=dapr-api-token: {_TOKEN}"

    run = await asyncio.create_subprocess_exec(
        program, *arguments, caller, cwd=machine.folder, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_LIMIT_S):
        shown, _ = await run.communicate()

    assert run.returncode == 0, shown.decode()
    # What it says at the end if it has tried them all.
    assert b"Test cases:" in shown
