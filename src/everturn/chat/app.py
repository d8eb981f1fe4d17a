"""The composition root of the chat service: `uvicorn everturn.chat.app:app --port 8010` beside a sidecar, or a part of
`everturn up`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dapr.ext.workflow import WorkflowRuntime, WorkflowState
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import everturn.chat.activities  # noqa: F401 - declares the steps
from everturn.chat.abandoned import end_abandoned
from everturn.chat.admission import Admission, Attempts
from everturn.chat.agent import Assistant
from everturn.chat.api import add_chat_routes
from everturn.chat.delivery import register_delivery
from everturn.chat.instances import TurnInstances
from everturn.chat.intake import Intake
from everturn.chat.maintenance import PURGE_EVERY_S, purge_ended
from everturn.chat.metrics import ChatMetrics
from everturn.chat.policies import policies_from
from everturn.chat.readiness import unready
from everturn.chat.records import TurnRecord, TurnRecords
from everturn.chat.services import TurnServices
from everturn.chat.session_store import HandOver, SessionStore
from everturn.chat.steps import register_steps
from everturn.chat.turn import register_turn
from everturn.chat.turns import Turns
from everturn.contracts.memory import ConversationEntry, UserMemory
from everturn.contracts.times import utc_now
from everturn.errors import TransientError
from everturn.models.build import build_chat_model, model_name
from everturn.models.secret_key import secret_key_of
from everturn.settings import Settings
from everturn.sidecar.client import DaprClient
from everturn.sidecar.dapr import DaprSidecar
from everturn.sidecar.repeating import repeating
from everturn.sidecar.workflows import Sidecar
from everturn.web.app import Service, build_app
from everturn.web.standalone import standalone_app

if TYPE_CHECKING:
    from agents import Model


class WarmedAssistant:
    """An assistant that is built in a thread at the start: the SDK behind it takes seconds to import."""

    def __init__(self, build: "Callable[[], Model]") -> None:
        self._build = build
        self._model: Model | None = None
        self._built: Assistant | None = None

    async def warm_up(self) -> None:
        self._model, self._built = await asyncio.to_thread(self._build_both)

    async def close(self) -> None:
        """End the model's connections."""
        if self._model is not None:
            await self._model.close()

    def _build_both(self) -> "tuple[Model, Assistant]":
        model = self._build()
        return model, Assistant(model)

    async def reply(self, memory: UserMemory, window: Sequence[ConversationEntry], text: str) -> str:
        """As `Assistant.reply`. Raises TransientError before `warm_up` is done."""
        if self._built is None:
            raise TransientError("the assistant is still starting", kind="starting")
        return await self._built.reply(memory, window, text)


def create_app(settings: Settings, sidecar: Sidecar | None = None, model: "Model | None" = None) -> FastAPI:
    """The chat service over `sidecar` (None: a real one), answering with `model` (None: that of the settings)."""
    return app_over(settings, ChatParts.over(settings, sidecar or DaprSidecar(settings), model))


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What the service has in memory, behind its routes. A service that starts again has new ones."""

    services: TurnServices
    sidecar: Sidecar
    assistant: WarmedAssistant
    intake: Intake
    turns: Turns
    admission: Admission
    registry: CollectorRegistry

    @classmethod
    def over(cls, settings: Settings, sidecar: Sidecar, model: "Model | None") -> "ChatParts":
        registry = CollectorRegistry()
        secret_key = secret_key_of(settings, DaprClient(sidecar.transport))
        assistant = WarmedAssistant(lambda: model or build_chat_model(settings, secret_key))
        services = _services(settings, sidecar, assistant, ChatMetrics(registry))
        return cls(
            services=services,
            sidecar=sidecar,
            assistant=assistant,
            intake=Intake(services),
            turns=Turns(services),
            admission=Admission(settings.max_requests, services.metrics),
            registry=registry,
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Work while the block runs."""
        await self.assistant.warm_up()
        await self.sidecar.start(_worker(self.services))
        try:
            async with repeating("purge", PURGE_EVERY_S, self.purge):
                yield
        finally:
            await self.sidecar.stop()
            await self.sidecar.transport.close()
            await self.assistant.close()

    async def unready(self) -> str | None:
        """Why no turn can run now; None where one can."""
        return await unready(self.sidecar.transport)

    async def purge(self) -> int:
        """Purge what has ended long ago; how many workflows."""
        return await purge_ended(self.services, utc_now())


def app_over(settings: Settings, parts: ChatParts) -> FastAPI:
    """The HTTP application over `parts`, whose lifespan is theirs."""
    service = Service(
        name="DACA Chat Service",
        summary="A chat turn that always finishes: every message is a durable workflow.",
        readiness=parts.unready,
        registry=parts.registry,
        cors_origins=settings.cors_origins,
    )
    app = build_app(
        service,
        lambda router: add_chat_routes(router, settings, parts.intake, parts.turns, parts.admission),
        lifespan=parts.lifespan,
    )
    app.state.metrics = parts.services.metrics
    app.state.release_waiters = parts.turns.release_waiters
    app.state.purge = parts.purge
    return app


def _services(settings: Settings, sidecar: Sidecar, assistant: WarmedAssistant, metrics: ChatMetrics) -> TurnServices:
    dapr = DaprClient(sidecar.transport)
    records, sessions = TurnRecords(dapr), SessionStore(dapr)
    instances = TurnInstances(sidecar.workflows, policies_from(settings))

    async def end(record: TurnRecord, workflow: WorkflowState | None) -> None:
        await end_abandoned(services, record, workflow)

    services = TurnServices(
        settings=settings,
        dapr=dapr,
        records=records,
        sessions=sessions,
        instances=instances,
        hand_over=HandOver(records, sessions, instances, end),
        assistant=assistant,
        model_name=model_name(settings),
        metrics=metrics,
        attempts=Attempts(settings.max_turns_at_once, metrics),
    )
    return services


def _worker(services: TurnServices) -> WorkflowRuntime:
    worker = WorkflowRuntime()
    register_turn(worker)
    register_delivery(worker)
    register_steps(worker, services)
    return worker


def __getattr__(name: str) -> Any:
    """`app`, made when it is asked for: importing this module needs no settings, no key and no sidecar."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = standalone_app(create_app)
    globals()["app"] = app
    return app
