"""Two replicas of the chat service on each runtime, and a client of each.

A replica has a model key of its own, so that a test sees which of them asked the model, and reaches the gRPC of its
sidecar over a link that a test can hold.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.layout import SidecarPorts, free_ports

from everturn.testing.fault_proxy import FaultProxy
from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.counts import SAME
from tests.conformance.fleet import Door, Fleet, make_fleet, sidecar_ports

ROOT = Path(__file__).parents[2]
OTHER = {"chat": "chat-2", "chat-2": "chat"}


@dataclass(frozen=True, slots=True)
class Replicated:
    """A system with two replicas, and the link from each of them to the gRPC of its sidecar."""

    fleet: Fleet
    links: Mapping[str, FaultProxy]
    sidecars: Mapping[str, SidecarPorts]

    async def start(self) -> None:
        """Start what does not run. In a thread, since the links are in the loop."""
        await asyncio.to_thread(self.fleet.start)

    def kill(self, replica: str) -> None:
        """`kill -9` of the replica and of its sidecar."""
        self.fleet.kill(replica)
        self.fleet.kill(f"{replica}-sidecar")

    async def survive(self, replica: str) -> None:
        """See to it that the replica can work. If the killed one had the same sidecar, that one is started again."""
        await asyncio.to_thread(self.fleet.restart, f"{replica}-sidecar")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client of each replica, both with the same user and session."""

    doors: Mapping[str, Client[Door]]
    system: Replicated
    endpoint: ModelEndpoint
    name: str

    def __getitem__(self, replica: str) -> Client[Door]:
        return self.doors[replica]

    def asked_by(self, text: str) -> list[str]:
        """Which replicas asked the model about `text`, in order."""
        asked = self.endpoint.requests_about(text)
        return [request.headers["authorization"].removeprefix("Bearer key-of-") for request in asked]

    async def turns_on_both(self, release: asyncio.Event, *, accepted_by: str) -> dict[str, str]:
        """Ids of turns by their text, all held in the model until `release`; each replica runs one of them at least.

        The runtime chooses who runs a turn, so turns of sessions of their own are sent until it has chosen both.
        """
        turns: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            while {self.asked_by(text)[0] for text in turns} != set(self.doors):
                text = f"message {len(turns)} of {self.name}."
                self.endpoint.script_for(text, Held(release, completion("given")), completion("given"))
                turns[text] = await self[accepted_by].accept(text, session=text, key=text)
                await self.endpoint.asked(1, about=text)
        return turns


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SAME)
async def system(
    request: pytest.FixtureRequest, endpoint: ModelEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicated]:
    settings = {
        "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
        "EVERTURN_MODEL_NAME": "scripted",
        "EVERTURN_ASSISTANT": "tests.conformance.booking:agent",
        "PYTHONPATH": str(ROOT),
    }
    ports = free_ports(chat_replicas=len(OTHER))
    sidecars = {replica: sidecar_ports(request.param, ports, replica) for replica in OTHER}
    async with AsyncExitStack() as stack:
        links = {replica: await stack.enter_async_context(FaultProxy(sidecars[replica].grpc)) for replica in OTHER}
        own_settings = {
            replica: {"EVERTURN_MODEL_API_KEY": f"key-of-{replica}", "DAPR_GRPC_PORT": str(link.port)}
            for replica, link in links.items()
        }
        folder = tmp_path_factory.mktemp(request.param)
        made = Replicated(make_fleet(request.param, folder, ports, settings, own_settings), links, sidecars)
        stack.push_async_callback(made.fleet.stop)
        await made.start()
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def pair(system: Replicated, endpoint: ModelEndpoint, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Clients of two replicas that run, and that run again when the test is over."""
    await system.start()
    name = request.node.name
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        yield Pair(
            {replica: Client(http, Door(system.fleet, replica), name) for replica in OTHER}, system, endpoint, name
        )
    await system.start()
