"""The event that the chat service publishes and the memory service stores. CloudEvents 1.0, JSON format."""

from typing import Literal

from pydantic import BaseModel

from everturn.contracts.chat import Id, Text

PUBSUB_NAME = "pubsub"
CONVERSATIONS_TOPIC = "conversations"
DEAD_LETTERS_TOPIC = "conversations-dead-letters"
CHAT_APP_ID = "chat-service"
MEMORY_APP_ID = "agent-memory-service"


class ConversationUpdated(BaseModel):
    """A turn has been answered. The CloudEvent's `id` is `turn_id`: stable over every retry and redelivery.

    `turn_id`, `sequence` (the turn's place in its conversation, from 1), `accepted_at` and `occurred_at` (time of the
    reply) are absent in events of older publishers; `sequence` counts only together with `turn_id`.
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
