"""A recorded turn: all that a replay of it needs, in one JSON document that can be kept as a file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from everturn.contracts.chat import ApprovalDecision, Failure, TurnStatus

Facts = dict[str, JsonValue]


class Recording(BaseModel):
    """The last run of a turn. `everturn_recording` is the version of this shape.

    `accepted`, `context` and `calls` are facts of the turn as they are stored. `recent`: the entries of the turns that
    the context names. `prompts`: what the calls were asked alike, by its digest. `decisions`: by the id of the call.
    """

    model_config = ConfigDict(extra="allow")

    everturn_recording: Literal[1] = 1
    turn_id: str
    run: int
    status: TurnStatus | None = Field(None, description="How the run ended; absent if it has not.")
    accepted: Facts
    context: Facts
    recent: list[Facts]
    calls: list[Facts]
    decisions: dict[str, ApprovalDecision]
    prompts: Facts
    reply: str | None = None
    error: Failure | None = None
