"""Shapes of the chat service: `Message` in, `ChatReply` and `Turn` out. Optional fields may be absent or null."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from everturn.contracts.fields import Id, Tag, Text

MAX_TAGS = 32


class Overlap(StrEnum):
    """What becomes of a message that comes while its session has a turn that has not ended.

    `queue`: it waits for its turn. `reject`: it is refused. `interrupt`: the turns before it are cancelled first.
    `merge`: the turn that runs takes it up before its next model call; it has a turn of its own if it comes too late.
    """

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    MERGE = "merge"


class MessageMetadata(BaseModel):
    """Which conversation a message belongs to. `timestamp` is the client's own and does not make another message.

    `overlap`: absent, that of the setting `EVERTURN_OVERLAP`.
    """

    session_id: Id | None = None
    timestamp: Text | None = None
    overlap: Overlap | None = None


class Message(BaseModel):
    """One message of a user. `text` is kept exactly, white space included.

    `user_id` is not needed from a signed-in user, and must be that user if it is given.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "junaid", "text": "Hi there"},
                {"user_id": "junaid", "text": "And now?", "metadata": {"session_id": "monday"}, "tags": ["web"]},
            ]
        }
    )

    user_id: Id | None = None
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
    "usage": {"input_tokens": 312, "output_tokens": 11, "model_calls": 1, "tool_calls": 0},
}


class Usage(BaseModel):
    """What a turn has used: each call counts once, whatever failed or crashed after it."""

    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0


class ChatReply(BaseModel):
    """The reply of a finished turn. `degraded` names what it had to do without: `memory`, `history`.

    `usage` is absent in replies of older releases.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_REPLY_EXAMPLE]})

    user_id: str
    reply: str
    metadata: ReplyMetadata
    turn_id: str
    status: Literal["completed"] = "completed"
    model: str
    degraded: list[str] = Field(default_factory=list)
    usage: Usage | None = None


class TurnStatus(StrEnum):
    """The state of a turn. The last three are the end of it."""

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


class Tokens(BaseModel):
    input: int
    output: int


class Call(BaseModel):
    """A call of a model or a tool that a turn has made. `attempts` are those of the tool, by its own policy.

    `arguments` and `answer` are there only if they are asked for.
    """

    call_id: str
    kind: Literal["model", "tool"]
    name: str
    agent: str
    attempts: int
    started_at: str
    finished_at: str | None = None
    error: Failure | None = None
    tokens: Tokens | None = None
    arguments: JsonValue = None
    answer: JsonValue = None


class TurnList(BaseModel):
    """Turns of a user, newest first. `next` is the `cursor` of those after them; absent at the end."""

    turns: list["Turn"]
    next: str | None = None


class SessionSummary(BaseModel):
    """A conversation: how many turns it has had, when the last one was accepted, how its first message begins."""

    session_id: str
    turns: int
    last_at: str
    title: str


class SessionList(BaseModel):
    """Conversations of a user, that of the newest turn first. `next` is as in `TurnList`."""

    sessions: list[SessionSummary]
    next: str | None = None


class Approval(BaseModel):
    """A call that a turn waits to have decided: `POST /turns/{turn_id}/approvals/{call_id}`."""

    call_id: str
    tool: str
    arguments: JsonValue = None
    asked_at: str
    expires_at: str | None = None


class ApprovalDecision(BaseModel):
    """What is decided about a call. The model reads the reason of a rejection."""

    decision: Literal["approve", "reject"]
    reason: Annotated[Text, Field(max_length=2_000)] | None = None


def merged_steps(past: Sequence[Step], now: Sequence[Step]) -> list[Step]:
    """The steps of an earlier run followed by those of the current one; a step of both is one, its attempts added."""
    merged = {step.name: step for step in past}
    for step in now:
        before = merged.get(step.name)
        if before is None:
            merged[step.name] = step
            continue
        together = {"attempts": before.attempts + step.attempts, "started_at": before.started_at}
        merged[step.name] = step.model_copy(update={**together, "error": step.error or before.error})
    return list(merged.values())


class Turn(BaseModel):
    """A turn as a client sees it, running or ended; `steps` in order of their start, `calls` of its last run.

    `next_attempt_at` is there while a step waits for its next attempt; `text`, the user's message, only if content is
    asked for. `merged_into` is the turn that took the message up, whose outcome this one shares.
    """

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
                            "status": "retrying",
                            "attempts": 2,
                            "started_at": "2026-01-31T12:00:00.130Z",
                            "error": {"kind": "timeout", "message": "the memory service gave no answer within 5 s"},
                        }
                    ],
                }
            ]
        }
    )

    turn_id: str
    user_id: str
    session_id: str
    sequence: int
    text: str | None = None
    status: TurnStatus
    created_at: str
    finished_at: str | None = None
    steps: list[Step] = Field(default_factory=list)
    calls: list[Call] = Field(default_factory=list)
    approvals: list[Approval] = Field(default_factory=list)
    reply: ChatReply | None = None
    error: Failure | None = None
    merged_into: str | None = None
    next_attempt_at: str | None = None
