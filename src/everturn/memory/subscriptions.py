"""The routes that the sidecar calls: events in, and what they are subscribed to.

An event is acknowledged when its turn is stored and its summary is sure to come. Dapr's answers:
https://docs.dapr.io/reference/api/pubsub_api/#expected-http-response
"""

import logging
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from everturn.contracts.events import CONVERSATIONS_TOPIC, DEAD_LETTERS_TOPIC, PUBSUB_NAME
from everturn.contracts.times import utc_now
from everturn.errors import ConflictError, TransientError
from everturn.memory.conversations import Conversations, Outcome
from everturn.memory.domain import Arrival
from everturn.memory.events import BadEvent, event_id_of, read_event
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.summary import Summaries

EVENTS_PATH = "/conversations"
DEAD_LETTERS_PATH = "/conversations/dead-letters"
# A message and a reply of a mebibyte each, where every character takes a six-byte escape.
MAX_EVENT_BYTES = 16 * 1_048_576

log = logging.getLogger(__name__)


class Acknowledgement(BaseModel):
    """What the sidecar is to do with an event: forget it, send it again, or put it to the dead letters."""

    status: Literal["SUCCESS", "RETRY", "DROP"]


class Subscriber:
    """Stores the events of the subscription."""

    def __init__(self, conversations: Conversations, summaries: Summaries, metrics: MemoryMetrics) -> None:
        self._conversations = conversations
        self._summaries = summaries
        self._metrics = metrics

    async def receive(self, body: bytes) -> Acknowledgement:
        """Deal with one CloudEvent. An unexpected error is not caught: the sidecar takes it for a RETRY."""
        begun = time.perf_counter()
        try:
            outcome = await self._store(read_event(body, utc_now()))
        except BadEvent as error:
            log.warning("event_dropped", extra={"event_id": event_id_of(body), "reason": error.message})
            outcome = Outcome.DROPPED
        except (TransientError, ConflictError) as error:
            log.warning("event_put_off", extra={"event_id": event_id_of(body), "error": error.message})
            return Acknowledgement(status="RETRY")
        self._metrics.event_ended(outcome, time.perf_counter() - begun)
        return Acknowledgement(status="DROP" if outcome is Outcome.DROPPED else "SUCCESS")

    def receive_dead_letter(self, body: bytes) -> Acknowledgement:
        self._metrics.dead_letter_received()
        log.error("dead_letter_received", extra={"event_id": event_id_of(body)})
        return Acknowledgement(status="SUCCESS")

    async def _store(self, arrival: Arrival) -> Outcome:
        stored = await self._conversations.store(arrival)
        ids = {"session_id": arrival.session_id, "turn_id": arrival.turn_id, "outcome": stored.outcome.value}
        if stored.outcome is Outcome.DROPPED:
            log.warning("event_dropped", extra={**ids, "reason": "the session belongs to another user"})
            return stored.outcome
        # For a duplicate as well: the first delivery may have ended between the two.
        await self._summaries.ensure(arrival.session_id, stored.conversation)
        log.info("event_stored", extra=ids)
        return stored.outcome


def add_subscription_routes(router: APIRouter, subscriber: Subscriber) -> None:
    """The subscription's routes. They read their bodies themselves: what is broken is dropped and not a 422."""

    @router.post(EVENTS_PATH, tags=["events"], summary="An event of the subscription", openapi_extra=_CLOUD_EVENT)
    async def receive_event(request: Request) -> Acknowledgement:
        return await subscriber.receive(await request.body())

    @router.post(DEAD_LETTERS_PATH, tags=["events"], summary="An event in the dead letters", openapi_extra=_CLOUD_EVENT)
    async def receive_dead_letter(request: Request) -> Acknowledgement:
        return subscriber.receive_dead_letter(await request.body())

    @router.get("/dapr/subscribe", tags=["events"], summary="What this service subscribes to")
    async def subscriptions() -> list[dict[str, str]]:
        return _SUBSCRIPTIONS


_SUBSCRIPTIONS = [
    {
        "pubsubname": PUBSUB_NAME,
        "topic": CONVERSATIONS_TOPIC,
        "route": EVENTS_PATH,
        "deadLetterTopic": DEAD_LETTERS_TOPIC,
    },
    {"pubsubname": PUBSUB_NAME, "topic": DEAD_LETTERS_TOPIC, "route": DEAD_LETTERS_PATH},
]

_CLOUD_EVENT: dict[str, Any] = {
    "requestBody": {
        "description": "A CloudEvent 1.0 in JSON whose `data` is a `ConversationUpdated`.",
        "required": True,
        "content": {
            "application/cloudevents+json": {
                "schema": {"type": "object"},
                "example": {
                    "specversion": "1.0",
                    "id": "0f0c8d6e-7f0e-4a57-9d3b-3d1f2c6f7a10",
                    "source": "chat-service",
                    "type": "com.dapr.event.sent",
                    "datacontenttype": "application/json",
                    "data": {
                        "event_type": "ConversationUpdated",
                        "user_id": "junaid",
                        "session_id": "5e8c4b0a-7c55-4f0e-9d0e-0b8a3c1a2f11",
                        "user_message": "Hi there",
                        "assistant_reply": "Hello Junaid!",
                        "turn_id": "0f0c8d6e-7f0e-4a57-9d3b-3d1f2c6f7a10",
                        "sequence": 1,
                        "occurred_at": "2026-01-31T12:00:00.123Z",
                    },
                },
            }
        },
    }
}
