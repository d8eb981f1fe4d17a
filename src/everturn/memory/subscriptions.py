"""The events of the subscription: their routes, and how a CloudEvent is read.

An event is acknowledged when its turn is stored and its summary is sure to come. Dapr's answers:
https://docs.dapr.io/reference/api/pubsub_api/#expected-http-response, CloudEvents:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import base64
import binascii
import logging
import time
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta, Raw, Struct
from pydantic import BaseModel, ValidationError

from everturn import tracing
from everturn.contracts.events import (
    CONVERSATIONS_TOPIC,
    DEAD_LETTERS_TOPIC,
    MAX_MERGED,
    MEMORY_APP_ID,
    PUBSUB_NAME,
    ConversationUpdated,
)
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.wire import JsonError, decode
from everturn.errors import ConflictError, TerminalError, TransientError
from everturn.memory.domain import Arrival, ByEvent, ByTurn, Turn
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.store import Conversations, Outcome
from everturn.memory.summary import Summaries
from everturn.web.problems import problem_responses

EVENTS_PATH = "/conversations"
DEAD_LETTERS_PATH = "/conversations/dead-letters"
_SUBSCRIBE_PATH = "/dapr/subscribe"
SIDECAR_PATHS = frozenset({EVENTS_PATH, DEAD_LETTERS_PATH, _SUBSCRIBE_PATH})
# A message and a reply of a mebibyte each, if every character takes a six-byte escape.
MAX_EVENT_BYTES = 16 * 1_048_576
# The largest integer that every JSON reader keeps exactly (RFC 8259 section 6).
_MAX_SEQUENCE = 2**53 - 1

log = logging.getLogger(__name__)

_ABSENT = Raw(b"null")
S = TypeVar("S", bound=Struct)


class _MergedData(Struct):
    """All of it is required, so that a list of nothing is refused at its beginning."""

    turn_id: str
    sequence: int
    user_message: str
    occurred_at: str


class EventData(Struct):
    """What is read of an event's data, which `ConversationUpdated` checks. Nothing is built of what else is in it."""

    event_type: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    user_message: str | None = None
    assistant_reply: str | None = None
    turn_id: str | None = None
    sequence: int | float | str | None = None
    accepted_at: str | None = None
    occurred_at: str | None = None
    merged: Annotated[list[_MergedData], Meta(max_length=MAX_MERGED)] | None = None


class _Envelope(Struct):
    """What is read of a CloudEvent: a member that is not what it should be is no reason to refuse the others."""

    id: Raw = _ABSENT
    time: Raw = _ABSENT
    traceparent: Raw = _ABSENT
    data: Raw = _ABSENT
    data_base64: Raw = _ABSENT


class BadEvent(TerminalError):
    """An event that can never be right."""

    kind = "bad_event"


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
        """Store one CloudEvent. An unexpected error is not caught: the sidecar takes it for a RETRY."""
        begun = time.perf_counter()
        try:
            arrival = read_event(body, utc_now())
            with tracing.span(MEMORY_APP_ID, "store_turn", parent=arrival.trace, kind="CONSUMER"):
                outcome = await self._store(arrival)
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
        ids = {"session_id": arrival.session_id, "turn_id": arrival.turn.turn_id, "outcome": stored.outcome.value}
        if stored.outcome is Outcome.DROPPED:
            log.warning("event_dropped", extra={**ids, "reason": stored.reason})
            return stored.outcome
        # For a duplicate as well: the first delivery may have ended between the two.
        await self._summaries.ensure(arrival.session_id, stored.conversation)
        log.info("event_stored", extra=ids)
        return stored.outcome


def add_subscription_routes(router: APIRouter, subscriber: Subscriber) -> None:
    """The subscription's routes. They read their bodies themselves: what is broken is dropped and not a 422."""
    event: dict[str, Any] = {"openapi_extra": _CLOUD_EVENT, "responses": problem_responses(401, 413)}

    @router.post(EVENTS_PATH, tags=["events"], summary="An event of the subscription", **event)
    async def receive_event(request: Request) -> Acknowledgement:
        return await subscriber.receive(await request.body())

    @router.post(DEAD_LETTERS_PATH, tags=["events"], summary="An event in the dead letters", **event)
    async def receive_dead_letter(request: Request) -> Acknowledgement:
        return subscriber.receive_dead_letter(await request.body())

    @router.get(
        _SUBSCRIBE_PATH, tags=["events"], summary="What this service subscribes to", responses=problem_responses(401)
    )
    async def subscriptions() -> list[dict[str, str]]:
        conversations = {"pubsubname": PUBSUB_NAME, "topic": CONVERSATIONS_TOPIC, "route": EVENTS_PATH}
        dead_letters = {"pubsubname": PUBSUB_NAME, "topic": DEAD_LETTERS_TOPIC, "route": DEAD_LETTERS_PATH}
        return [{**conversations, "deadLetterTopic": DEAD_LETTERS_TOPIC}, dead_letters]


def read_event(body: bytes, received_at: datetime) -> Arrival:
    """The turn that a CloudEvent of a `ConversationUpdated` brings.

    `received_at` is its time if it names none. Raises BadEvent for what is none, in words without its content.
    """
    envelope = _object(body, _Envelope, "the event")
    update = _update(_object(_data(envelope), EventData, "the event's data"))
    replied_at = _time(update.occurred_at) or _time(_text(envelope.time)) or to_wire(received_at)
    times = {"accepted_at": _time(update.accepted_at) or replied_at, "occurred_at": replied_at}
    return Arrival(
        user_id=update.user_id,
        session_id=update.session_id,
        key=_key(update, _text(envelope.id)),
        turn=msgspec.convert({**update.model_dump(), **times, "merged": _merged(update, replied_at)}, Turn),
        trace=_text(envelope.traceparent),
    )


def _merged(update: ConversationUpdated, replied_at: str) -> list[dict[str, Any]]:
    return [
        {**message.model_dump(), "occurred_at": _time(message.occurred_at) or replied_at}
        for message in update.merged or ()
    ]


def event_id_of(body: bytes) -> str | None:
    """The id of a CloudEvent that may be broken, for a log."""
    try:
        return _text(_object(body, _Envelope, "the event").id)
    except BadEvent:
        return None


def _key(update: ConversationUpdated, event_id: str | None) -> ByTurn | ByEvent:
    if update.turn_id is not None and update.sequence is not None:
        if not 1 <= update.sequence <= _MAX_SEQUENCE:
            raise BadEvent(f"sequence must be from 1 to {_MAX_SEQUENCE}")
        return ByTurn(update.turn_id, update.sequence)
    known_by = event_id or update.turn_id
    if known_by is None:
        raise BadEvent("the event has no id and no turn_id")
    return ByEvent(known_by)


def _data(envelope: _Envelope) -> bytes | str:
    """The JSON of the event's data, which may itself be a string or base64."""
    if envelope.data != _ABSENT:
        text = _text(envelope.data)
        return bytes(envelope.data) if text is None else text
    encoded = _text(envelope.data_base64)
    if encoded is None:
        return bytes(_ABSENT)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadEvent("data_base64 is not base64") from None


def _update(data: EventData) -> ConversationUpdated:
    try:
        return ConversationUpdated.model_validate(msgspec.to_builtins(data))
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise BadEvent(f"the event's data is no ConversationUpdated: {fields}") from None


def _time(value: str | None) -> str | None:
    """A time in the form of the contract; None if there is none that can be read."""
    if value is None:
        return None
    try:
        return to_wire(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        return None


def _text(member: Raw) -> str | None:
    """The string that `member` is; None if it is something else."""
    try:
        return decode(bytes(member), str)
    except JsonError:
        return None


def _object(body: bytes | str, shape: type[S], what: str) -> S:
    try:
        return decode(body, shape)
    except JsonError as error:
        raise BadEvent(f"{what} cannot be read: {error}") from None


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
