"""The event that the chat service publishes and the memory service stores. CloudEvents 1.0, JSON format."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from everturn.contracts.fields import Id, Text

PUBSUB_NAME = "pubsub"
CONVERSATIONS_TOPIC = "conversations"
DEAD_LETTERS_TOPIC = "conversations-dead-letters"
CHAT_APP_ID = "chat-service"
MEMORY_APP_ID = "agent-memory-service"


# Of an event that is read: as many as can wait in a session. A turn takes fewer up (`chat/session.py`).
MAX_MERGED = 500


class MergedMessage(BaseModel):
    """A message that the turn of another one took up. `occurred_at`: when it was accepted."""

    turn_id: Id
    sequence: int
    user_message: Text
    occurred_at: str


class ConversationUpdated(BaseModel):
    """A turn has been answered. The CloudEvent's `id` is `turn_id`: stable over every retry and redelivery.

    `turn_id`, `sequence` (the turn's place in its conversation, from 1), `accepted_at` and `occurred_at` (time of the
    reply) are absent in events of older publishers; `sequence` counts only together with `turn_id`. `merged`: messages
    that came while the turn ran, and that the reply answers as well.
    """

    event_type: Literal["ConversationUpdated"]
    user_id: Id
    session_id: Id
    user_message: Text
    assistant_reply: Text
    turn_id: Id | None = None
    sequence: int | None = None
    accepted_at: str | None = None
    occurred_at: str | None = None
    merged: Annotated[list[MergedMessage], Field(max_length=MAX_MERGED)] | None = None
