"""Shapes of the agent memory service: `UserMemory` and the entries of a conversation."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from everturn.contracts.fields import checked_text

MAX_FIELD_CHARS = 2_000

MemoryField = Annotated[str, Field(max_length=MAX_FIELD_CHARS), AfterValidator(checked_text)]


class UserMemory(BaseModel):
    """What is remembered of a user: how to call them, how to speak to them, what they said of themselves."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "Junaid", "preferred_style": "formal", "user_summary": "Junaid lives in Karachi."}]
        }
    )

    name: MemoryField
    preferred_style: MemoryField
    user_summary: MemoryField


class ConversationEntry(BaseModel):
    """One entry of a conversation. The user's has the time of acceptance, the assistant's the time of the reply."""

    role: Literal["user", "assistant"]
    content: str
    timestamp: str


class ConversationHistory(BaseModel):
    """A conversation in the order of its turns."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "history": [
                        {"role": "user", "content": "Hi there", "timestamp": "2026-01-31T12:00:00.123Z"},
                        {"role": "assistant", "content": "Hello Junaid!", "timestamp": "2026-01-31T12:00:01.250Z"},
                    ]
                }
            ]
        }
    )

    history: list[ConversationEntry]


def default_memory(user_id: str) -> UserMemory:
    """What is known of a user of whom nothing is known yet.

    The name is cut to what a memory field may hold; an id is never longer than that.
    """
    return UserMemory(name=user_id, preferred_style="casual", user_summary=f"{user_id} is a new user.")
