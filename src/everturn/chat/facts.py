"""What is written down of a turn: the shapes of its facts, and the keys that they are stored under.

A stored fact has a version; what an older release does not know of it, it keeps if it writes it again.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from everturn.contracts.chat import ChatReply, Failure, ReplyMetadata, Step, TurnStatus, Usage
from everturn.contracts.fields import key_part
from everturn.errors import TransientError

VERSION = 1


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`unknown` keeps what a newer release wrote, to write it again. `is_cached`: a process keeps it in memory.

    `is_one_writers`: that an equal one is there says that it is the writer's own.
    """

    is_cached: ClassVar[bool] = True
    is_one_writers: ClassVar[bool] = True

    version: int = VERSION
    unknown: dict[str, Any] = {}

    def stored(self) -> dict[str, Any]:
        """The value as it is stored."""
        return {"version": self.version, **whole(self)}


class Accepted(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A message was accepted at `at`. `streamed`, `run_id`, `given`: see `accept.TurnOptions`.

    `trace`: a `traceparent`. `overlap`: a word of `contracts.chat.Overlap`, empty for `queue`.
    """

    user_id: str
    session_id: str
    text: str
    tags: list[str] = []
    at: str
    streamed: bool = False
    run_id: str = ""
    given: list["PastEntry"] = []
    trace: str = ""
    overlap: str = ""


class Refused(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """The message was refused `at`, when it would have taken its place: it gets none afterwards."""

    at: str


class RunAsked(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody asked to run a failed turn again."""

    at: str


class PastEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the history with the turn that it belongs to (absent for events of older publishers)."""

    role: str
    content: str
    timestamp: str
    turn_id: str | None = None
    sequence: int | None = None


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of a conversation as the memory service has it; `truncated` if it has older turns as well."""

    history: list[PastEntry]
    truncated: bool = False


class Context(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """What a reply is made from: the user's memory and the window of history; a part is None if it was out of reach.

    `recent`: the completed turns that the memory service did not have yet, each as id, run and sequence; None in facts
    of older releases. `stored_up_to`: see `Reply`.
    """

    memory: dict[str, str] | None = None
    history: Window | None = None
    recent: list[tuple[str, int, int]] | None = None
    stored_up_to: int = 0

    @property
    def missing(self) -> list[str]:
        """The parts that a reply must do without, in the words of `ChatReply.degraded`."""
        parts = {"memory": self.memory, "history": self.history}
        return [name for name, part in parts.items() if part is None]


class Merged(msgspec.Struct, frozen=True):
    """A message that a turn took up, under the names of its event. `occurred_at`: when it was accepted."""

    turn_id: str
    sequence: int
    user_message: str
    occurred_at: str


class Reply(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="reply", tag_field="verdict"):
    """The model's reply. `stored_up_to`: the memory service has all turns of the session up to this sequence.

    `usage`: see `ChatReply`. `last_call`: the `Call` that gave it. `place`: how many calls were before that, and which
    attempt said it. `merged`: the messages that it answers besides that of its turn. `words`, here and in the other
    verdicts: how many words count; `merged_into`: the turn that took the message up, of whose verdict this is a copy.
    """

    text: str
    model: str
    at: str
    degraded: list[str] = []
    stored_up_to: int = 0
    usage: dict[str, int] = {}
    last_call: dict[str, Any] = {}
    place: tuple[int, int] = (0, 0)
    merged: list[Merged] = []
    words: int = -1
    merged_into: str = ""


class Failed(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="failure", tag_field="verdict"):
    """A step failed for good, after so many attempts."""

    step: str
    attempts: int
    kind: str
    message: str
    at: str
    words: int = -1
    merged_into: str = ""

    def as_failure(self) -> Failure:
        return Failure(kind=self.kind, message=self.message)


class Cancelled(Fact, frozen=True, kw_only=True, omit_defaults=True, tag="cancellation", tag_field="verdict"):
    """Somebody asked to end the turn without a reply."""

    at: str
    words: int = -1
    merged_into: str = ""


Verdict = Reply | Failed | Cancelled


class Outcome(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """How and when a run ended; `sequence` is the turn's place in its conversation.

    `attempt` of its last step wrote this: one that comes later only finishes what is left to do. Several who end a run
    in one millisecond make equal ones, of which one counts.
    """

    is_one_writers: ClassVar[bool] = False

    status: TurnStatus
    at: str
    sequence: int
    attempt: int = 1


class Prompt(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A part of what models are asked that many turns share: tools and handoffs, or instructions. Last seen `at`."""

    value: Any
    at: str


class KeptSteps(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """The steps of a run whose workflow may be gone, or may go on for a moment after a cancellation."""

    steps: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class TurnRun:
    """A run of a turn: 0, and one more for each rerun."""

    turn_id: str
    number: int
    accepted: Accepted

    @property
    def instance_id(self) -> str:
        """The id of the workflow instance that runs it."""
        return instance_id(self.turn_id, self.number)

    @property
    def overlap(self) -> str:
        """How it enters its session; a rerun always goes to the end."""
        return self.accepted.overlap if self.number == 0 else ""

    def key(self, fact: str) -> str:
        return run_key(self.turn_id, self.number, fact)


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """The latest run of a turn, as far as the journal has it. `past_steps` are those of the runs before."""

    run: TurnRun
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    steps: list[Step] | None = None
    past_steps: list[Step] = field(default_factory=list)

    def reply(self) -> ChatReply | None:
        """The reply as the client gets it; None while there is none."""
        if not isinstance(self.verdict, Reply):
            return None
        return ChatReply(
            user_id=self.run.accepted.user_id,
            reply=self.verdict.text,
            metadata=ReplyMetadata(session_id=self.run.accepted.session_id, timestamp=self.verdict.at),
            turn_id=self.run.turn_id,
            model=self.verdict.model,
            degraded=self.verdict.degraded,
            usage=Usage.model_validate(self.verdict.usage) if self.verdict.usage else None,
        )


def whole(struct: msgspec.Struct) -> dict[str, Any]:
    """What is stored of `struct`, with the fields of a newer release."""
    value: dict[str, Any] = msgspec.to_builtins(struct)
    return {**value.pop("unknown", {}), **value}


def instance_id(turn_id: str, number: int) -> str:
    return turn_id if number == 0 else f"{turn_id}.{number + 1}"


def run_of_instance(instance_id: str) -> tuple[str, int]:
    """Turn and number of the run that a workflow instance runs."""
    turn_id, _, number = instance_id.rpartition(".")
    return (turn_id, max(0, int(number) - 1)) if turn_id and number.isdecimal() else (instance_id, 0)


def accepted_key(turn_id: str) -> str:
    return f"turn:{key_part(turn_id)}:accepted"


def asked_key(turn_id: str, number: int) -> str:
    return f"turn:{key_part(turn_id)}:run:{number}"


def run_key(turn_id: str, number: int, fact: str) -> str:
    return f"turn:{key_part(turn_id)}:{number}:{fact}"


def prompt_key(digest: str) -> str:
    return f"prompt:{digest}"


def record_key(turn_id: str) -> str:
    """The key of the release before."""
    return f"turn:{key_part(turn_id)}"


def decoded(value: Any, kind: Any) -> Any:
    """A stored value as `kind` (a struct with `unknown`, or a union of them). Raises TransientError if it is none."""
    try:
        fact = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise TransientError("a stored value cannot be read", kind="unreadable") from error
    known = {*fact.__struct_fields__, fact.__struct_config__.tag_field}
    unknown = {key: value[key] for key in value if key not in known}
    return msgspec.structs.replace(fact, unknown=unknown) if unknown else fact
