"""How often a turn waits for the disk: what nobody outside has seen shares a commit with what comes next."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2

from everturn import compose
from everturn.dapr.wire import Transport
from everturn.runtime.database.database import Database
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.runtime.lock import lock_folder
from everturn.settings import Settings
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import PATIENCE_S
from tests.system.test_main_path import HeldEvents, is_at_rest

# Acceptance with the start, each of the three steps, and the end of the workflow, if it is quick.
MOST_COMMITS = 5


async def test_a_turn_alone_waits_for_few_commits_before_its_reply(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    held: list[HeldEvents] = []

    def hold(inner: Transport) -> Transport:
        held.append(HeldEvents(inner))
        return held[0]

    wiring = compose.Wiring(clock=clock, to_memory=hold)
    model = {"model_base_url": endpoint.base_url, "model_name": "scripted"}
    settings = Settings(_env_file=None, data_dir=tmp_path, **model)  # type: ignore[arg-type]
    database = await Database.open(tmp_path / "everturn.db")
    runtime = await EmbeddedRuntime.create(database, lock_folder(tmp_path), compose.runtime_options(settings, wiring))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(lambda: runtime.stop(1.0))
        system = await compose.start_services(stack, settings, runtime, wiring)
        transport = httpx2.ASGITransport(system.chat.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as chat:
            await _say(chat, "warm up")
            async with asyncio.timeout(PATIENCE_S):
                while not await is_at_rest(runtime):  # noqa: ASYNC110 - of several things
                    await asyncio.sleep(0)
            held[0].release.clear()
            before = database.commits

            await _say(chat, "hello")

            commits = database.commits - before
        held[0].release.set()

    assert commits <= MOST_COMMITS


async def _say(chat: httpx2.AsyncClient, text: str) -> None:
    body = {"user_id": "ann", "text": text, "metadata": {"session_id": "s"}}
    reply = await chat.post("/chat/", json=body, headers={"idempotency-key": text})
    assert reply.status_code == 200, reply.text
