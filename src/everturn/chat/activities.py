"""The steps of a turn. Each says how it is idempotent: all of them may run again after a crash.

To add one: a function here, a line in `turn.py` (docs/how-to/add-a-step.md).
"""

import logging
from typing import Any

from everturn.chat.context import bring_context, stored_up_to, unstored, with_recent
from everturn.chat.delivery import schedule_delivery
from everturn.chat.ending import end_turn_in_session
from everturn.chat.records import Context, PastEntry, StoredReply, TurnRecord, Window
from everturn.chat.steps import StepCall, refuse_cancelled, step
from everturn.chat.turn import (
    DEFER_EVENT,
    END_TURN,
    FETCH_CONTEXT,
    GENERATE_RESPONSE,
    HANDLE_ERROR,
    SAVE_CONVERSATION,
)
from everturn.chat.window import fit
from everturn.contracts.chat import Failure, TurnStatus
from everturn.contracts.events import CONVERSATIONS_TOPIC, DEAD_LETTERS_TOPIC, PUBSUB_NAME, ConversationUpdated
from everturn.contracts.memory import default_memory
from everturn.contracts.times import to_wire, utc_now
from everturn.errors import TransientError

log = logging.getLogger(__name__)


# The parts have the setting's limit each; the step itself only has to reach the state store besides.
@step(FETCH_CONTEXT, timeout_s=lambda settings: settings.fetch_timeout_s + 5)
async def fetch_context(call: StepCall) -> None:
    """Put the user's memory and a window of the conversation into the record. What is there is not fetched again."""
    found = await call.versioned_record()
    record = found.record
    if record.reply is not None:
        return
    context, error = await bring_context(call.services.dapr, call.services.settings, record)

    def brought(now: TurnRecord) -> TurnRecord | None:
        refuse_cancelled(now)
        return None if now.reply or now.context == context else now.model_copy(update={"context": context})

    await call.services.records.change(call.turn_id, brought, found)
    if error is not None:
        raise error


@step(
    GENERATE_RESPONSE,
    timeout_s=lambda settings: settings.generate_timeout_s,
    at_once=lambda settings: settings.max_model_calls,
)
async def generate_response(call: StepCall) -> None:
    """Ask the model and store its reply in the record; a reply that is stored already is not asked for again."""
    found = await call.versioned_record()
    record = found.record
    if record.reply is not None:
        return
    context = record.context or Context()
    history, confirmed = await _history(call, record, context)
    memory = context.memory or default_memory(record.user_id)
    window = fit(history, call.services.settings.history_tokens)
    text = await call.services.assistant.reply(memory, window, record.text)
    reply = StoredReply(text=text, model=call.services.model_name, at=to_wire(utc_now()), degraded=context.missing)

    def replied(now: TurnRecord) -> TurnRecord | None:
        if now.reply is not None:
            return None
        refuse_cancelled(now)
        return now.model_copy(update={"reply": reply, "context": None, "stored_up_to": confirmed})

    await call.services.records.change(call.turn_id, replied, found)


async def _history(call: StepCall, record: TurnRecord, context: Context) -> tuple[list[PastEntry], int]:
    """The history of the prompt, and the sequence up to which the memory service has all of it."""
    session = (await call.services.sessions.get(record.session_id, record.user_id)).session
    window = context.history or Window(history=[])
    missing = unstored(session, window)
    recent = await call.services.records.find_all([place.turn_id for place in missing])
    return with_recent(window.history, recent), stored_up_to(session, missing)


@step(SAVE_CONVERSATION, timeout_s=lambda settings: settings.save_timeout_s)
async def save_conversation(call: StepCall) -> None:
    """Publish ConversationUpdated. Published again it is the same event (id = turn id), which is stored once.

    `deferred`: the turn goes on to its completion without this event, so that no cancellation may keep it back.
    """
    record = (await call.services.records.get(call.turn_id)).record
    if not call.details.get("deferred"):
        refuse_cancelled(record)
    await call.services.dapr.publish(PUBSUB_NAME, CONVERSATIONS_TOPIC, conversation_event(record))


def conversation_event(record: TurnRecord) -> dict[str, Any]:
    """The CloudEvent of an answered turn (CloudEvents 1.0, JSON format). Raises TransientError without a reply."""
    if record.reply is None:
        raise TransientError(f"turn {record.turn_id!r} has no reply to publish", kind="no_reply")
    data = ConversationUpdated(
        event_type="ConversationUpdated",
        user_id=record.user_id,
        session_id=record.session_id,
        user_message=record.text,
        assistant_reply=record.reply.text,
        turn_id=record.turn_id,
        sequence=record.sequence,
        accepted_at=record.accepted_at,
        occurred_at=record.reply.at,
    )
    return cloud_event(record.turn_id, data.event_type, record.reply.at, data.model_dump(mode="json"))


def cloud_event(event_id: str, event_type: str, at: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "chat-service",
        "type": event_type,
        "time": at,
        "datacontenttype": "application/json",
        "data": data,
    }


@step(DEFER_EVENT)
async def defer_event(call: StepCall) -> None:
    """Hand the event to a workflow that goes on trying to publish it; its instance id makes it one."""
    await schedule_delivery(call.services.instances, call.turn_id)
    log.warning("event_deferred", extra={"turn_id": call.turn_id})


@step(HANDLE_ERROR)
async def handle_error(call: StepCall) -> None:
    """Tell of a turn that failed for good: in the log, and to the dead letters under an id that never changes."""
    failure = call.details["failure"]
    record = (await call.services.records.get(call.turn_id)).record
    letter = {
        "event_type": "TurnFailed",
        "turn_id": record.turn_id,
        "user_id": record.user_id,
        "session_id": record.session_id,
        "step": failure["step"],
        "kind": failure["kind"],
        "attempts": failure["attempts"],
        "failed_at": to_wire(utc_now()),
    }
    ids = {key: letter[key] for key in ("turn_id", "step", "kind", "attempts")}
    log.error("turn_failed", extra=ids)
    event = cloud_event(f"{record.instance_id}.failed", "TurnFailed", letter["failed_at"], letter)
    await call.services.dapr.publish(PUBSUB_NAME, DEAD_LETTERS_TOPIC, event)


@step(END_TURN)
async def end_turn(call: StepCall) -> None:
    """Write down how the turn ended, take it off its session's queue, start the next. Done twice it changes nothing."""
    failure = call.details.get("failure")
    await end_turn_in_session(
        call.services,
        call.turn_id,
        TurnStatus(call.details["status"]),
        step=failure["step"] if failure else None,
        error=Failure(kind=failure["kind"], message=failure["message"]) if failure else None,
        instance_id=call.instance_id,
    )
