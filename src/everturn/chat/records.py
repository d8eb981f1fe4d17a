"""The turn record: what a turn needs and what it leaves, in one key of the state store (`turn:{turn_id}`).

The workflow's own history holds ids only; message, context and reply live here. Every change is one write under the
record's ETag, so a reply that is stored is never stored twice, and a cancelled turn never gets one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from everturn.contracts.chat import Failure, Step, TurnStatus
from everturn.contracts.ids import TurnId, key_part
from everturn.contracts.memory import ConversationEntry, UserMemory
from everturn.errors import ConflictError, TerminalError, TransientError
from everturn.sidecar.client import DaprClient, Save, StateItem

# A lost race is decided after a few tries; more than this is trouble with the store.
_MAX_CONFLICTS = 20


class PastEntry(ConversationEntry):
    """An entry of the history with the turn that it belongs to (absent for events of older publishers)."""

    turn_id: str | None = None
    sequence: int | None = None


class Window(BaseModel):
    """The end of a conversation as the memory service has it; `truncated` where it has older turns as well."""

    history: list[PastEntry]
    truncated: bool = False


class Context(BaseModel):
    """What `fetch_context` brought; a part is None while, or because, it could not be had."""

    memory: UserMemory | None = None
    history: Window | None = None

    @property
    def missing(self) -> list[str]:
        """The parts that a reply must do without, in the words of `ChatReply.degraded`."""
        parts = {"memory": self.memory, "history": self.history}
        return [name for name, part in parts.items() if part is None]


class StoredReply(BaseModel):
    """A reply that the model gave; `at` is the time of it."""

    text: str
    model: str
    at: str
    degraded: list[str] = Field(default_factory=list)


class Outcome(BaseModel):
    """How a turn ended. `step` is the step that failed."""

    status: Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED]
    at: str
    step: str | None = None
    error: Failure | None = None


class TurnRecord(BaseModel):
    """A turn on disk. `run` counts its workflows: 1, and one more for each rerun, which begins at `from_step`.

    `stored_up_to`: the memory service has all turns of the session up to this sequence. `past_steps` are those of
    earlier runs and of a workflow that was purged.
    """

    turn_id: str
    user_id: str
    session_id: str
    sequence: int
    text: str
    tags: list[str] = Field(default_factory=list)
    accepted_at: str
    run: int = 1
    from_step: str | None = None
    stored_up_to: int = 0
    context: Context | None = None
    reply: StoredReply | None = None
    cancel_requested: bool = False
    outcome: Outcome | None = None
    past_steps: list[Step] = Field(default_factory=list)
    purged: bool = False

    @property
    def instance_id(self) -> str:
        """The id of the workflow instance that runs, or will run, this turn."""
        return self.turn_id if self.run == 1 else f"{self.turn_id}.{self.run}"


@dataclass(frozen=True, slots=True)
class Versioned:
    """A record with the ETag under which it was read."""

    record: TurnRecord
    etag: str


def record_key(turn_id: str) -> str:
    return f"turn:{key_part(turn_id)}"


def parse_record(item: StateItem) -> Versioned:
    return Versioned(TurnRecord.model_validate(item.value), item.etag)


def save_record(record: TurnRecord, *, etag: str | None, ttl_s: int | None = None) -> Save:
    """The write that stores `record`: under `etag`, or as a new one where that is None."""
    value = record.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return Save(record_key(record.turn_id), value, etag=etag, first_write=etag is None, ttl_s=ttl_s)


class TurnRecords:
    """Reads and changes turn records."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def find(self, turn_id: str) -> Versioned | None:
        item = await self._dapr.get_state(record_key(turn_id))
        return None if item is None else parse_record(item)

    async def get(self, turn_id: str) -> Versioned:
        """Raises TerminalError where there is no such turn."""
        found = await self.find(turn_id)
        if found is None:
            raise unknown_turn(turn_id)
        return found

    async def find_all(self, turn_ids: Sequence[str]) -> list[TurnRecord]:
        """Those of `turn_ids` that exist, in that order."""
        if not turn_ids:
            return []
        items = await self._dapr.get_states([record_key(turn_id) for turn_id in turn_ids])
        keys = [record_key(turn_id) for turn_id in turn_ids]
        return [parse_record(items[key]).record for key in keys if key in items]

    async def change(
        self, turn_id: str, change: Callable[[TurnRecord], TurnRecord | None], seen: Versioned | None = None
    ) -> TurnRecord:
        """Store what `change` makes of the record as it is now; nothing where it gives None. Returns what holds then.

        `change` runs again when somebody else wrote in between; it may raise to refuse. `seen` is the record as it was
        read before: where it still holds, it need not be read again to be changed.
        """
        for _ in range(_MAX_CONFLICTS):
            found, seen = seen or await self.get(turn_id), None
            changed = change(found.record)
            if changed is None:
                return found.record
            try:
                await self._dapr.save_state(save_record(changed, etag=found.etag))
            except ConflictError:
                continue
            return changed
        raise TransientError(f"turn {turn_id!r} is changed too often at once", kind="conflict")


def unknown_turn(turn_id: str) -> TerminalError:
    return TerminalError(f"no turn {TurnId(turn_id)!r}", kind="not_found")
