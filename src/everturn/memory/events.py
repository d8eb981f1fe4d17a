"""Reads the CloudEvents of the subscription (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md)."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from everturn.contracts.events import ConversationUpdated
from everturn.contracts.times import to_wire
from everturn.errors import TerminalError
from everturn.memory.domain import Arrival

# The largest integer that every JSON reader keeps exactly (RFC 8259 section 6).
_MAX_SEQUENCE = 2**53 - 1


class BadEvent(TerminalError):
    """An event that can never be right."""

    kind = "bad_event"


def read_event(body: bytes, received_at: datetime) -> Arrival:
    """The turn that a CloudEvent of a `ConversationUpdated` tells of.

    `received_at` is its time where it names none. Raises BadEvent for what is none, in words without its content.
    """
    envelope = _object(_json(body, "the event"), "the event")
    update = _update(_data(envelope))
    event_id = envelope.get("id")
    return _arrival(
        update, event_id if isinstance(event_id, str) and event_id else None, _times(envelope, update, received_at)
    )


def event_id_of(body: bytes) -> str | None:
    """The id of a CloudEvent that may be broken, for a log."""
    try:
        value = _object(_json(body, "the event"), "the event").get("id")
    except BadEvent:
        return None
    return value if isinstance(value, str) else None


def _arrival(update: ConversationUpdated, event_id: str | None, times: tuple[str, str]) -> Arrival:
    sequence = update.sequence if update.turn_id is not None else None
    if sequence is not None and not 1 <= sequence <= _MAX_SEQUENCE:
        raise BadEvent(f"sequence must be from 1 to {_MAX_SEQUENCE}")
    known_by = event_id or update.turn_id
    if known_by is None:
        raise BadEvent("the event has no id and no turn_id")
    return Arrival(
        user_id=update.user_id,
        session_id=update.session_id,
        turn_id=update.turn_id,
        sequence=sequence,
        event_id=known_by if sequence is None else None,
        message=update.user_message,
        reply=update.assistant_reply,
        accepted_at=times[0],
        replied_at=times[1],
    )


def _data(envelope: Mapping[str, Any]) -> dict[str, Any]:
    data = envelope.get("data")
    if data is None and isinstance(envelope.get("data_base64"), str):
        try:
            data = base64.b64decode(envelope["data_base64"], validate=True)
        except (binascii.Error, ValueError):
            raise BadEvent("data_base64 is not base64") from None
    if isinstance(data, str | bytes):
        data = _json(data, "the event's data")
    return _object(data, "the event's data")


def _update(data: dict[str, Any]) -> ConversationUpdated:
    try:
        return ConversationUpdated.model_validate(data)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise BadEvent(f"the event's data is no ConversationUpdated: {fields}") from None


def _times(envelope: Mapping[str, Any], update: ConversationUpdated, received_at: datetime) -> tuple[str, str]:
    replied_at = _time(update.occurred_at) or _time(envelope.get("time")) or to_wire(received_at)
    return _time(update.accepted_at) or replied_at, replied_at


def _time(value: object) -> str | None:
    """A time in the form of the contract; None where there is none that can be read."""
    if not isinstance(value, str):
        return None
    try:
        return to_wire(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        return None


def _json(text: str | bytes, what: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        raise BadEvent(f"{what} is not JSON") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadEvent(f"{what} is not an object")
    return value
