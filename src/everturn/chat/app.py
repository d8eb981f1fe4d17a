"""The composition root of the chat service: `uvicorn everturn.chat.app:app --port 8010` beside a sidecar, or a part of
`everturn up`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dapr.ext.workflow import WorkflowRuntime
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry

from everturn.chat.accept import Acceptance, Claims
from everturn.chat.agui import add_agui_route
from everturn.chat.api import ChatApi, add_chat_routes
from everturn.chat.assistant.agent import WarmedAssistant
from everturn.chat.budget import TokenBudget
from everturn.chat.context import ContextSource
from everturn.chat.ending import Ending
from everturn.chat.journal import Journal
from everturn.chat.live.feed import Feeds
from everturn.chat.live.streams import Streams
from everturn.chat.maintenance import AbandonedTurns, Purge
from everturn.chat.metrics import ChatMetrics, InFlight
from everturn.chat.old_records import facts_of
from everturn.chat.openai_api import add_openai_routes, error_of_openai
from everturn.chat.page import add_page_routes, page_for
from everturn.chat.queue import SessionQueue
from everturn.chat.streamed_words import Hints, WordWriters, close_words
from everturn.chat.turn_lists import Lists
from everturn.chat.turns import Turns
from everturn.chat.user_index import UserIndexes
from everturn.chat.waiting import Cancellations, EndSignals, TurnWaiter
from everturn.chat.workflow.chat_turn import TurnWorkflows, register_chat_turn
from everturn.chat.workflow.deliver_event import register_deliver_event, start_delivery
from everturn.chat.workflow.steps import STEP_NAMES, StepAttempts, TurnParts, policies_from, save_policy
from everturn.contracts.events import CHAT_APP_ID
from everturn.contracts.fields import utc_now
from everturn.dapr.client import store_fault
from everturn.dapr.metadata import unready
from everturn.dapr.origins import AllowedPages
from everturn.dapr.sidecar import DaprSidecar
from everturn.dapr.workflows import Sidecar, Workflows
from everturn.models.endpoint import model_name
from everturn.models.providers import build_model
from everturn.purging import purging
from everturn.settings import Settings
from everturn.web.app import Service, build_app, standalone_apps
from everturn.web.callers import identify_by

if TYPE_CHECKING:
    from agents import Model


def create_app(settings: Settings, sidecar: Sidecar | None = None, model: "Model | None" = None) -> FastAPI:
    """The chat service over `sidecar` (None: a real one), answering with `model` (None: that of the settings)."""
    return app_over(settings, ChatParts.create(settings, sidecar or DaprSidecar(settings), model))


@dataclass(frozen=True, slots=True)
class ChatParts:
    """What the service has in memory, behind its routes. A service that starts again has new ones."""

    sidecar: Sidecar
    assistant: WarmedAssistant
    acceptance: Acceptance
    turns: Turns
    waiter: TurnWaiter
    lists: Lists
    streams: Streams
    context: ContextSource
    cancellations: Cancellations
    attempts: StepAttempts
    purging: Purge
    requests: InFlight
    metrics: ChatMetrics
    registry: CollectorRegistry

    @classmethod
    def create(cls, settings: Settings, sidecar: Sidecar, model: "Model | None") -> "ChatParts":
        """Everything, each made from what is above it."""
        registry, signals = CollectorRegistry(), EndSignals()
        metrics = ChatMetrics(registry)
        dapr, workflows = sidecar.client, Workflows(sidecar.workflows)
        assistant = WarmedAssistant(
            settings, lambda: model or build_model(settings, "chat", dapr), model_name(settings), dapr
        )
        steps = InFlight(settings.max_inflight_steps, "steps of turns are running", metrics)
        metrics.show_under_way(steps)
        journal, hints = Journal(dapr, settings.keep_turns_days, facts_of, close_words), Hints()
        queue = SessionQueue(dapr, journal, TurnWorkflows(workflows, STEP_NAMES, policies_from(settings)))
        indexes = UserIndexes(dapr, journal, settings.max_open_turns_per_user)
        deliver_later = partial(start_delivery, workflows, save_policy(settings))
        ending = Ending(dapr, journal, queue, deliver_later, metrics, signals)
        abandoned = AbandonedTurns(journal, queue, ending, workflows)
        # At least for the time that the setting says, after the end of a turn that waits for its model for long.
        word_writers = WordWriters(journal, hints, int(settings.keep_words_s + settings.generate_give_up_s))
        context = ContextSource(dapr, journal, settings)
        cancellations = Cancellations(journal, queue, signals)
        parts = TurnParts(settings, journal, queue, context, assistant, ending, cancellations, word_writers, metrics)
        claims = Claims(dapr, ttl_s=int(2 * settings.keep_turns_days * 86_400))
        turns = Turns(journal, queue, abandoned, workflows, steps, indexes)
        waiter = TurnWaiter(journal, workflows, signals, turns.look_after)
        budget = TokenBudget(journal, indexes, daily) if (daily := settings.user_daily_tokens) else None
        return cls(
            sidecar=sidecar,
            assistant=assistant,
            acceptance=Acceptance(claims, journal, queue, indexes, abandoned, steps, budget, settings.overlap),
            turns=turns,
            waiter=waiter,
            lists=Lists(indexes, turns, queue),
            streams=Streams(Feeds(journal, waiter, hints), settings.max_streams_per_user),
            context=context,
            cancellations=cancellations,
            attempts=StepAttempts(settings, parts, steps, metrics),
            purging=Purge(journal, abandoned, workflows, settings.keep_workflows_hours),
            requests=InFlight(settings.max_requests, "messages are being answered", metrics),
            metrics=metrics,
            registry=registry,
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Work while the block runs."""
        await self.assistant.warm_up()
        worker = WorkflowRuntime()
        register_chat_turn(worker)
        register_deliver_event(worker)
        self.attempts.register(worker)
        await self.sidecar.start(worker)
        try:
            async with self.cancellations.looking(), purging(self.purge):
                yield
        finally:
            await self.sidecar.stop()
            await self.sidecar.transport.close()
            await self.assistant.close()

    async def unready(self) -> str | None:
        """Why no turn can run now; None if one can."""
        return await unready(self.sidecar.transport) or await store_fault(self.sidecar.client)

    async def purge(self) -> int:
        """Purge what has ended long ago; how many workflows."""
        return await self.purging.run(utc_now())


def app_over(settings: Settings, parts: ChatParts) -> FastAPI:
    """The HTTP application over `parts`, whose lifespan is theirs."""
    page = page_for(settings.auth)
    service = Service(
        name="DACA Chat Service",
        app_id=CHAT_APP_ID,
        summary="A chat turn that always finishes: every message is a durable workflow.",
        readiness=parts.unready,
        registry=parts.registry,
        pages=AllowedPages.of(settings),
        identify=identify_by(settings),
        page=page.index,
        page_paths=page.paths,
        settled=parts.sidecar.client.settled,
        shapes={"/v1/": error_of_openai},
    )

    def add_routes(router: APIRouter) -> None:
        api = ChatApi(settings, parts.acceptance, parts.turns, parts.waiter, parts.lists, parts.streams, parts.requests)
        add_chat_routes(router, api)
        add_agui_route(router, api)
        add_openai_routes(router, api)
        add_page_routes(router, page, parts.context.memory)

    return build_app(service, add_routes, lifespan=parts.lifespan)


__getattr__ = standalone_apps(__name__, app=create_app)
