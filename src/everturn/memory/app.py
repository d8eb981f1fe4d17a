"""The composition root of the agent memory service: `uvicorn everturn.memory.app:app --port 8001` beside a sidecar, or
a part of `everturn up`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from dapr.ext.workflow import WorkflowRuntime
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from everturn.contracts.events import MEMORY_APP_ID
from everturn.contracts.fields import utc_now
from everturn.dapr.client import store_fault
from everturn.dapr.origins import AllowedPages
from everturn.dapr.sidecar import DaprSidecar
from everturn.dapr.workflows import Sidecar, Workflows
from everturn.errors import SettingError
from everturn.memory.api import add_memory_routes
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.store import Stores
from everturn.memory.subscriptions import (
    EVENTS_PATH,
    MAX_EVENT_BYTES,
    SIDECAR_PATHS,
    Subscriber,
    add_subscription_routes,
)
from everturn.memory.summary import Refresher, Summaries, register_summary
from everturn.models.providers import build_model
from everturn.models.summarizer import SummaryTurn, summarise
from everturn.purging import purging
from everturn.settings import Settings
from everturn.web.app import Service, build_app, standalone_apps
from everturn.web.callers import identify_by

if TYPE_CHECKING:
    from agents import Model


class LateModel:
    """The summary model, built in a thread with the first summary: the SDK behind it takes seconds to import."""

    def __init__(self, build: "Callable[[], Model]") -> None:
        self._build = build
        self._built: Model | None = None
        self._building = asyncio.Lock()

    async def summarise(self, user_name: str, previous: str, turns: Sequence[SummaryTurn]) -> str:
        """As `everturn.models.summarizer.summarise`."""
        async with self._building:
            if self._built is None:
                self._built = await asyncio.to_thread(self._build)
        return await summarise(self._built, user_name, previous, turns)

    async def close(self) -> None:
        if self._built is not None:
            await self._built.close()


def create_app(settings: Settings, sidecar: Sidecar | None = None, model: "Model | None" = None) -> FastAPI:
    """The memory service over `sidecar` (None: a real Dapr sidecar), with `model` (None: that of the settings).

    Raises SettingError if users sign in and nothing tells the sidecar from them.
    """
    token = settings.app_api_token
    if token is None and settings.auth != "none":
        raise SettingError(
            f"EVERTURN_AUTH is {settings.auth} but APP_API_TOKEN is not set: the memory service knows its sidecar by it"
        )
    shown = token.get_secret_value() if token else None
    return app_over(settings, MemoryParts(settings, sidecar or DaprSidecar(settings), model, shown))


class MemoryParts:
    """What the service has in memory, behind its routes. A service that starts again has new ones.

    `sidecar_token`: what the sidecar shows; None if it has nothing to show.
    """

    def __init__(
        self, settings: Settings, sidecar: Sidecar, model: "Model | None", sidecar_token: str | None = None
    ) -> None:
        self.settings, self.sidecar = settings, sidecar
        self.sidecar_token = SecretStr(sidecar_token) if sidecar_token else None
        self.dapr, self.registry = sidecar.client, CollectorRegistry()
        metrics = MemoryMetrics(self.registry)
        self.stores = Stores.create(self.dapr)
        self.workflows = Workflows(sidecar.workflows)
        self.summaries = Summaries(
            self.workflows, self.stores.conversations, quiet_s=settings.summary_quiet_s, enough=settings.summary_turns
        )
        self.subscriber = Subscriber(self.stores.conversations, self.summaries, metrics)
        self.model = LateModel(lambda: model or build_model(settings, "summary", self.dapr))
        self.refresher = Refresher(self.stores, self.model.summarise, metrics, timeout_s=settings.generate_timeout_s)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Work while the block runs."""
        worker = WorkflowRuntime()
        register_summary(worker, self.refresher, self.summaries)
        await self.sidecar.start(worker)
        try:
            async with purging(self.purge):
                yield
        finally:
            await self.sidecar.stop()
            await self.sidecar.transport.close()
            await self.model.close()

    async def unready(self) -> str | None:
        """Why events cannot be stored now: the state store is what this service cannot do without."""
        return await store_fault(self.dapr)

    async def purge(self) -> int:
        """Purge the summaries that ended long ago, for nothing asks for them again; how many workflows."""
        purged = 0
        long_ago = utc_now() - timedelta(hours=self.settings.keep_workflows_hours)
        async for instance_id in self.workflows.ended_before(long_ago):
            await self.workflows.purge(instance_id)
            purged += 1
        return purged


def app_over(settings: Settings, parts: MemoryParts) -> FastAPI:
    """The HTTP application over `parts`, whose lifespan is theirs."""
    service = Service(
        name="DACA Agent Memory Service",
        app_id=MEMORY_APP_ID,
        summary="What is remembered of users and of their conversations.",
        readiness=parts.unready,
        registry=parts.registry,
        pages=AllowedPages.of(settings),
        identify=identify_by(settings),
        token=parts.sidecar_token,
        is_closed=settings.app_api_token is not None,
        sidecar_paths=SIDECAR_PATHS,
        body_limits={EVENTS_PATH: MAX_EVENT_BYTES},
    )

    def add_routes(router: APIRouter) -> None:
        add_subscription_routes(router, parts.subscriber)
        add_memory_routes(router, parts.stores)

    return build_app(service, add_routes, lifespan=parts.lifespan)


__getattr__ = standalone_apps(__name__, app=create_app)
