"""A turn with model calls, parallel tools, a handoff and an approval, whose chat service is killed at a write.

Between the service and its sidecar is a proxy that sees the writes. `PAID_KILLS` says at how many of them a kill is
tried, or `all`; `PAID_KILLS_SEED` chooses them.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.layout import free_ports

from everturn.testing.fault_proxy import FaultProxy
from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import ASYNC, PATIENCE_S, Client
from tests.conformance.counts import SAME
from tests.conformance.fleet import Door, Fleet, make_fleet, sidecar_ports
from tests.conformance.replicas import ROOT
from tests.paid_turn import MESSAGE, OURS, check, made_in, script
from tests.system.paid_assistant import EFFECTS

pytestmark = pytest.mark.asyncio(loop_scope="session")

_KILLS = os.environ.get("PAID_KILLS", "4")
_SEED = int(os.environ.get("PAID_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
_CHUNK_BYTES = 65_536
_WRITES = (b"POST /v1.0/state/", b"POST /v1.0/publish/")


class WriteWatch(FaultProxy):
    """Counts the writes that pass, and lets one wait for ever: before it comes through, or with its answer."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__(upstream_port)
        self.arm(0)

    def arm(self, at: int, *, is_after: bool = False) -> None:
        """Count from 1 again; `reached` is set when write number `at` waits."""
        self.writes = 0
        self.reached = asyncio.Event()
        self._at = at
        self._is_after = is_after
        self._holds_answers = False

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if data.startswith(_WRITES) and b"/bulk" not in data.partition(b"\r\n")[0]:
                self.writes += 1
                if self.writes == self._at and not self._is_after:
                    await self._wait_for_ever()
                self._holds_answers = self._holds_answers or self.writes == self._at
            if self._holds_answers and data.startswith(b"HTTP/1.1 "):
                await self._wait_for_ever()
            writer.write(data)
            await writer.drain()

    async def _wait_for_ever(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Paid:
    """A system whose chat service can be killed at a write; its tools write to the file `effects`."""

    fleet: Fleet
    watch: WriteWatch
    endpoint: ModelEndpoint
    effects: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SAME)
async def paid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Paid]:
    ports, folder = free_ports(), tmp_path_factory.mktemp(request.param)
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(ModelEndpoint(otherwise=completion("hello")))
        script(endpoint, 1_000)
        watch = await stack.enter_async_context(WriteWatch(sidecar_ports(request.param, ports, "chat").http))
        settings = {
            "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
            "EVERTURN_MODEL_NAME": "scripted",
            "EVERTURN_ASSISTANT": OURS,
            "PYTHONPATH": str(ROOT),
            EFFECTS: str(folder / "effects"),
        }
        fleet = make_fleet(request.param, folder, ports, settings, {"chat": {"DAPR_HTTP_PORT": str(watch.port)}})
        stack.push_async_callback(fleet.stop)
        await asyncio.to_thread(fleet.start)
        yield Paid(fleet, watch, endpoint, folder / "effects")


async def finished(client: Client[Door], text: str) -> dict[str, Any]:
    """The turn once it has ended; what is asked is approved. The client's key finds one that was accepted before."""
    sent = await client.say(text, headers=ASYNC | {"Idempotency-Key": text})
    assert sent.status_code in (200, 202), sent.text
    turn_id = str(sent.json()["turn_id"])

    async def is_asked_or_over() -> bool:
        return (await client.turn(turn_id))["status"] in ("waiting", "completed", "failed")

    await client.until(is_asked_or_over)
    for asked in (await client.turn(turn_id))["approvals"]:
        decided = await client.steer(turn_id, f"approvals/{asked['call_id']}", decision="approve")
        assert decided.status_code == 200, decided.text
    return await client.ended(turn_id)


async def killed_at(paid: Paid, client: Client[Door], at: int, *, is_after: bool) -> None:
    """Have a turn run by a service that is killed at its write `at`, and then by another, and look at what was made."""
    where = f"write {at}, done: {is_after}, PAID_KILLS_SEED={_SEED}"
    text = f"{MESSAGE}: {client.name}, {where}"
    paid.watch.arm(at, is_after=is_after)
    working = asyncio.create_task(finished(client, text))
    reached = asyncio.create_task(paid.watch.reached.wait())
    await asyncio.wait([working, reached], return_when=asyncio.FIRST_COMPLETED)
    is_killed = paid.watch.reached.is_set()
    if is_killed:
        paid.fleet.kill("chat")
        working.cancel()
    reached.cancel()
    await asyncio.gather(working, reached, return_exceptions=True)
    if is_killed:
        paid.watch.arm(0)
        await asyncio.to_thread(paid.fleet.restart, "chat")
        await client.served()
        turn = await finished(client, text)
    else:
        turn = working.result()
    # Two tools run at once: the one whose answer is not written yet, and the one that waits to write.
    check(turn, made_in(paid.effects, turn["turn_id"], paid.endpoint.requests, text), where, 2 if is_killed else 0)


async def test_a_turn_with_paid_calls_outlives_the_kill_of_its_service_at_a_write(
    paid: Paid, request: pytest.FixtureRequest
) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        client = Client(http, Door(paid.fleet, "chat"), request.node.name)
        await killed_at(paid, client, 0, is_after=False)
        points = [(at, is_after) for at in range(1, paid.watch.writes + 1) for is_after in (False, True)]
        chosen = points if _KILLS == "all" else random.Random(_SEED).sample(points, int(_KILLS))

        for place, (at, is_after) in enumerate(chosen):
            own = Client(http, client.system, f"{client.name} {place}")
            await killed_at(paid, own, at, is_after=is_after)

    assert len(points) > 2 * 12
