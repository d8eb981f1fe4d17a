"""The composition root of the agent memory service: `uvicorn everturn.memory.app:app --port 8001` beside a sidecar, or
a part of `everturn up`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dapr.ext.workflow import WorkflowRuntime
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry

from everturn.contracts.times import utc_now
from everturn.errors import EverturnError
from everturn.memory.api import add_memory_routes
from everturn.memory.maintenance import PURGE_EVERY_S, purge_ended
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.refresh import Refresher
from everturn.memory.stores import Stores
from everturn.memory.subscriptions import EVENTS_PATH, MAX_EVENT_BYTES, Subscriber, add_subscription_routes
from everturn.memory.summary import Summaries, register_summary
from everturn.models.build import build_summary_model
from everturn.models.secret_key import secret_key_of
from everturn.models.summary import SummaryTurn, summarise
from everturn.settings import Settings
from everturn.sidecar.client import DaprClient
from everturn.sidecar.dapr import DaprSidecar
from everturn.sidecar.repeating import repeating
from everturn.sidecar.workflows import Sidecar
from everturn.web.app import Service, build_app
from everturn.web.standalone import standalone_app

if TYPE_CHECKING:
    from agents import Model


class LateModel:
    """The summary model, built in a thread with the first summary: the SDK behind it takes seconds to import."""

    def __init__(self, build: "Callable[[], Model]") -> None:
        self._build = build
        self._built: Model | None = None
        self._building = asyncio.Lock()

    async def summarise(self, user_name: str, previous: str, turns: Sequence[SummaryTurn]) -> str:
        """As `everturn.models.summary.summarise`."""
        async with self._building:
            if self._built is None:
                self._built = await asyncio.to_thread(self._build)
        return await summarise(self._built, user_name, previous, turns)

    async def close(self) -> None:
        if self._built is not None:
            await self._built.close()


def create_app(settings: Settings, sidecar: Sidecar | None = None, model: "Model | None" = None) -> FastAPI:
    """The memory service over `sidecar` (None: a real Dapr sidecar), with `model` (None: that of the settings)."""
    return app_over(settings, MemoryParts.over(settings, sidecar or DaprSidecar(settings), model))


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """What the service has in memory, behind its routes. A service that starts again has new ones."""

    settings: Settings
    sidecar: Sidecar
    dapr: DaprClient
    stores: Stores
    subscriber: Subscriber
    summaries: Summaries
    refresher: Refresher
    model: LateModel
    registry: CollectorRegistry

    @classmethod
    def over(cls, settings: Settings, sidecar: Sidecar, model: "Model | None") -> "MemoryParts":
        dapr, registry = DaprClient(sidecar.transport), CollectorRegistry()
        metrics = MemoryMetrics(registry)
        stores = Stores.over(dapr)
        summaries = Summaries(lambda: sidecar.workflows, stores.conversations)
        secret_key = secret_key_of(settings, dapr)
        late_model = LateModel(lambda: model or build_summary_model(settings, secret_key))
        return cls(
            settings=settings,
            sidecar=sidecar,
            dapr=dapr,
            stores=stores,
            subscriber=Subscriber(stores.conversations, summaries, metrics),
            summaries=summaries,
            refresher=Refresher(stores, late_model.summarise, metrics, timeout_s=settings.generate_timeout_s),
            model=late_model,
            registry=registry,
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Work while the block runs."""
        worker = WorkflowRuntime()
        register_summary(worker, self.refresher, self.summaries)
        await self.sidecar.start(worker)
        try:
            async with repeating("purge", PURGE_EVERY_S, self.purge):
                yield
        finally:
            await self.sidecar.stop()
            await self.sidecar.transport.close()
            await self.model.close()

    async def unready(self) -> str | None:
        """Why events cannot be stored now: the state store is what this service cannot do without."""
        try:
            await self.dapr.get_state("readyz")
        except EverturnError as error:
            return f"the state store cannot be read: {error.message}"
        return None

    async def purge(self) -> int:
        """Purge the summaries that ended long ago; how many workflows."""
        return await purge_ended(self.sidecar.workflows, self.settings, utc_now())


def app_over(settings: Settings, parts: MemoryParts) -> FastAPI:
    """The HTTP application over `parts`, whose lifespan is theirs."""
    service = Service(
        name="DACA Agent Memory Service",
        summary="What is remembered of users and of their conversations.",
        readiness=parts.unready,
        registry=parts.registry,
        cors_origins=settings.cors_origins,
        token=settings.app_api_token,
        body_limits={EVENTS_PATH: MAX_EVENT_BYTES},
    )

    def add_routes(router: APIRouter) -> None:
        add_subscription_routes(router, parts.subscriber)
        add_memory_routes(router, parts.stores)

    app = build_app(service, add_routes, lifespan=parts.lifespan)
    app.state.purge = parts.purge
    return app


def __getattr__(name: str) -> FastAPI:
    """`app`, made when it is asked for: importing this module needs no settings, no key and no sidecar."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = standalone_app(create_app)
    globals()["app"] = app
    return app
