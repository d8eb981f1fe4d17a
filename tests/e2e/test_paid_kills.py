"""A turn with model calls, parallel tools, a handoff and an approval, in a process that is killed at a write."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest

from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import SOURCE, Client, Machine, free_ports
from tests.paid_turn import MESSAGE, OURS, check, made_in, script
from tests.system.paid_assistant import EFFECTS

_SEED = int(os.environ.get("PAID_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
_SAMPLE = 3


def machine_in(folder: Path, endpoint: ModelEndpoint) -> Machine:
    (folder / "home").mkdir(parents=True)
    settings = {
        "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
        "EVERTURN_MODEL_NAME": "scripted",
        "EVERTURN_ASSISTANT": OURS,
        "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, SOURCE.parent))),
        EFFECTS: str(folder / "effects"),
        "WRITES": str(folder / "writes"),
    }
    chat_port, memory_port = free_ports(2)
    return Machine(folder, chat_port, memory_port, settings)


async def finished(client: Client) -> dict[str, Any]:
    """The turn once it has ended; what is asked is approved. The client's key finds one that was accepted before."""
    sent = await client.say(MESSAGE, headers={"Idempotency-Key": "k", "Prefer": "respond-async"})
    assert sent.status_code in (200, 202), sent.text
    turn_id = str(sent.json()["turn_id"])

    async def is_asked_or_over() -> bool:
        return (await client.turn(turn_id))["status"] in ("waiting", "completed", "failed")

    async def is_over() -> bool:
        return (await client.turn(turn_id))["status"] in ("completed", "failed")

    await client.until(is_asked_or_over)
    for asked in (await client.turn(turn_id))["approvals"]:
        path = f"{client.machine.chat_url}/turns/{turn_id}/approvals/{asked['call_id']}"
        decided = await client.http.post(path, json={"decision": "approve"})
        assert decided.status_code == 200, decided.text
    await client.until(is_over)
    return await client.turn(turn_id)


async def killed_at(folder: Path, endpoint: ModelEndpoint, at: int, *, is_after: bool) -> int:
    """Have the turn run by a process that dies at write `at`, and then by another; how many writes the first made."""
    endpoint.requests.clear()
    machine = machine_in(folder, endpoint)
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        client = Client(http, machine)
        mortal = {"DIES_AT": str(at), **({"DIES_AFTER": "yes"} if is_after else {})}
        first = await machine.run(module="tests.e2e.mortal", **mortal)
        try:
            await first.out.first(lambda line: line.startswith("  curl "))
            turn = await unless_dead(finished(client), first.process)
            writes = len((folder / "writes").read_text())
            if turn is None:
                await machine.up()
                turn = await finished(client)
        finally:
            await machine.end_all()
    made = made_in(folder / "effects", turn["turn_id"], endpoint.requests, MESSAGE)
    where = f"write {at}, done: {is_after}, PAID_KILLS_SEED={_SEED}"
    # Two tools run at once: the one whose answer is not written yet, and the one that waits to write.
    check(turn, made, where, 0 if at == 0 else 2)
    return writes


async def unless_dead(work: Any, process: asyncio.subprocess.Process) -> Any:
    """What comes of `work`; None if the process dies first."""
    working, dying = asyncio.ensure_future(work), asyncio.ensure_future(process.wait())
    await asyncio.wait([working, dying], return_when=asyncio.FIRST_COMPLETED)
    if working.done() and working.exception() is None:
        dying.cancel()
        return working.result()
    # A connection of the dead is broken a moment before its end is known.
    async with asyncio.timeout(10):
        await dying
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None


async def test_a_turn_outlives_kills_at_some_of_its_writes(tmp_path: Path) -> None:
    async with ModelEndpoint(otherwise=completion("hello")) as endpoint:
        script(endpoint, 50)
        writes = await killed_at(tmp_path / "whole", endpoint, 0, is_after=False)
        chosen = random.Random(_SEED).sample(range(1, writes + 1), _SAMPLE)
        for place, at in enumerate(chosen):
            await killed_at(tmp_path / str(at), endpoint, at, is_after=place % 2 == 1)

    assert writes > 12


@pytest.mark.slow
async def test_a_turn_outlives_a_kill_at_any_of_its_writes(tmp_path: Path) -> None:
    async with ModelEndpoint(otherwise=completion("hello")) as endpoint:
        script(endpoint, 500)
        writes = await killed_at(tmp_path / "whole", endpoint, 0, is_after=False)
        for at in range(1, writes + 1):
            for is_after in (False, True):
                await killed_at(tmp_path / f"{at}-{is_after}", endpoint, at, is_after=is_after)

    assert writes > 12
