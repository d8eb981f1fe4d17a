"""`kill -9` of the real process, again and again, under load: a client that retries by key sees nothing of it."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.campaign import tell
from tests.chaos.checker import violations
from tests.chaos.client import look_at_everything
from tests.chaos.real import Kills, RealClient, RealModel, WatchedJournal
from tests.e2e.conftest import Machine, free_ports

_KILLS = int(os.environ.get("CHAOS_KILLS", "30"))
_SEED = int(os.environ.get("CHAOS_SEED", "1"))
_SESSIONS = 6
# For what hangs, not a measure.
_PATIENCE_S = 600.0


@pytest.fixture
async def kills(tmp_path: Path) -> AsyncIterator[Kills]:
    journal = WatchedJournal()
    async with RealModel(journal) as model:
        (tmp_path / "home").mkdir()
        settings = {
            "EVERTURN_MODEL_BASE_URL": model.base_url,
            "EVERTURN_MODEL_NAME": "scripted",
        }
        chat_port, memory_port = free_ports(2)
        machine = Machine(tmp_path, chat_port, memory_port, settings)
        client = RealClient(journal, machine)
        yield Kills(machine, journal, client, model, random.Random(_SEED))
        await client.close()
        await machine.end_all()


async def _talk(kills: Kills, number: int) -> None:
    """Messages one after the other; some are sent twice at once, some wait behind another."""
    client, place = kills.client, 0
    while not kills.is_over.is_set():
        await _post(client, number, f"{number}.{place}", "", "")
        if place % 3 == 0:
            key = f"{number}.{place}d"
            await asyncio.gather(_post(client, number, key, "", ""), _post(client, number, key, " too", ""))
        if place % 3 == 1:
            await _post(client, number, f"{number}.{place}a", "", "respond-async")
            await _post(client, number, f"{number}.{place}b", "", "")
        place += 1


async def _post(client: RealClient, number: int, key: str, again: str, prefer: str) -> None:
    body = {"user_id": f"u{number // 2}", "text": key, "metadata": {"session_id": f"s{number}"}}
    how = {"prefer": prefer} if prefer else {}
    await client.do(f"say {key}{again}", "POST", "/chat/", body, key=key, **how)


async def test_a_process_that_is_killed_again_and_again_loses_doubles_and_reorders_nothing(
    kills: Kills, capsys: pytest.CaptureFixture[str]
) -> None:
    async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(kills.go(_KILLS))
        for number in range(_SESSIONS):
            tasks.create_task(_talk(kills, number))
    async with asyncio.timeout(_PATIENCE_S):
        await look_at_everything(kills.client)

    found = violations(kills.journal)
    turns = len(kills.journal.turn_of())
    cut_off = sum(call.cut_off for call in kills.journal.calls)
    unanswered = sum(item.answered is None for item in kills.journal.exchanges)
    with capsys.disabled():
        tell(
            f" {kills.done} kills, {kills.before_ready} of them while it started, over {turns} turns; "
            f"{unanswered} requests unanswered, {cut_off} model calls cut off; CHAOS_SEED={_SEED}"
        )
    assert found == []
    assert kills.done == _KILLS
    assert unanswered > 0, "no kill fell on a request"
