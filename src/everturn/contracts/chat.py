"""Shapes of the chat service: `Message` in, `ChatReply` and `Turn` out. Optional fields may be absent or null."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from everturn.contracts.ids import MAX_ID_CHARS, id_fault
from everturn.contracts.text import text_fault

MAX_TAGS = 32
MAX_TAG_CHARS = 64


def _checked_id(value: str) -> str:
    if fault := id_fault(value):
        raise ValueError(fault)
    return value


def checked_text(value: str) -> str:
    """For pydantic: `value`, if it can be kept exactly. Raises ValueError with the rest of a sentence if not."""
    if fault := text_fault(value):
        raise ValueError(fault)
    return value


# `id_fault` checks the length, in a sentence of its own; the schema only tells of it.
Id = Annotated[str, AfterValidator(_checked_id), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_CHARS})]
Text = Annotated[str, AfterValidator(checked_text)]
Tag = Annotated[str, Field(max_length=MAX_TAG_CHARS), AfterValidator(checked_text)]


class MessageMetadata(BaseModel):
    """Which conversation a message belongs to. `timestamp` is the client's own and does not make another message."""

    session_id: Id | None = None
    timestamp: Text | None = None


class Message(BaseModel):
    """One message of a user. `text` is kept exactly, white space included."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "junaid", "text": "Hi there"},
                {
                    "user_id": "junaid",
                    "text": "What is my name?",
                    "metadata": {"session_id": "5e8c4b0a-7c55-4f0e-9d0e-0b8a3c1a2f11"},
                    "tags": ["web"],
                },
            ]
        }
    )

    user_id: Id
    text: Text
    metadata: MessageMetadata | None = None
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] | None = None


class ReplyMetadata(BaseModel):
    """`timestamp` is the server's time of the reply."""

    session_id: str
    timestamp: str


_REPLY_EXAMPLE: dict[str, JsonValue] = {
    "user_id": "junaid",
    "reply": "Hey Junaid! What's up?",
    "metadata": {"session_id": "5e8c4b0a-7c55-4f0e-9d0e-0b8a3c1a2f11", "timestamp": "2026-01-31T12:00:01.250Z"},
    "turn_id": "0f0c8d6e-7f0e-4a57-9d3b-3d1f2c6f7a10",
    "status": "completed",
    "model": "offline-demo",
    "degraded": [],
}


class ChatReply(BaseModel):
    """The reply of a finished turn. `degraded` names what it had to do without: `memory`, `history`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REPLY_EXAMPLE]})

    user_id: str
    reply: str
    metadata: ReplyMetadata
    turn_id: str
    status: Literal["completed"] = "completed"
    model: str
    degraded: list[str] = Field(default_factory=list)


class TurnStatus(StrEnum):
    """Where a turn stands. The last three are the end of it."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class StepStatus(StrEnum):
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"


class Failure(BaseModel):
    """What went wrong: `kind` for programs, `message` a safe sentence for people."""

    kind: str
    message: str


class Step(BaseModel):
    """A step of a turn. `attempts` counts attempts started; `error` is that of the last failed attempt."""

    name: str
    status: StepStatus
    attempts: int
    started_at: str
    finished_at: str | None = None
    error: Failure | None = None


class Turn(BaseModel):
    """A turn as a client sees it, running or ended; `steps` in order of their start."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "turn_id": "0f0c8d6e-7f0e-4a57-9d3b-3d1f2c6f7a10",
                    "user_id": "junaid",
                    "session_id": "5e8c4b0a-7c55-4f0e-9d0e-0b8a3c1a2f11",
                    "sequence": 1,
                    "status": "running",
                    "created_at": "2026-01-31T12:00:00.123Z",
                    "steps": [
                        {
                            "name": "fetch_context",
                            "status": "completed",
                            "attempts": 2,
                            "started_at": "2026-01-31T12:00:00.130Z",
                            "finished_at": "2026-01-31T12:00:00.345Z",
                            "error": {"kind": "timeout", "message": "the memory service gave no answer within 5 s"},
                        },
                        {
                            "name": "generate_response",
                            "status": "running",
                            "attempts": 1,
                            "started_at": "2026-01-31T12:00:00.350Z",
                        },
                    ],
                }
            ]
        }
    )

    turn_id: str
    user_id: str
    session_id: str
    sequence: int
    status: TurnStatus
    created_at: str
    finished_at: str | None = None
    steps: list[Step] = Field(default_factory=list)
    reply: ChatReply | None = None
    error: Failure | None = None
