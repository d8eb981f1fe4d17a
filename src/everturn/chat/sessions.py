"""A session: whose it is, which turns wait, which have just completed. One key of the state store (`session:{id}`).

Every change is one write under its ETag, so the order of these writes is the order of the turns, whichever replica
made them. The head of the queue is the turn that runs; only it has a workflow.
"""

from pydantic import BaseModel, Field

from everturn.contracts.ids import key_part
from everturn.errors import TerminalError, TransientError
from everturn.sidecar.client import Save, StateItem

# A queue is one value that is written whole: longer ones would make every write of the session slow.
MAX_QUEUED_TURNS = 500
# Completed turns that are kept in sight until the memory service has them. More than any window of history holds of
# usual turns, and few enough to write on every change while the broker is away.
MAX_RECENT_TURNS = 200


class Place(BaseModel):
    """A turn in a session. A paused one holds all behind it."""

    turn_id: str
    sequence: int
    paused: bool = False


class Session(BaseModel):
    """`queue`: turns that have not ended, in order; `recent`: completed ones that the memory service may not have."""

    user_id: str
    next_sequence: int = 1
    queue: list[Place] = Field(default_factory=list)
    recent: list[Place] = Field(default_factory=list)

    @property
    def head(self) -> Place | None:
        return self.queue[0] if self.queue else None

    def place_of(self, turn_id: str) -> Place | None:
        return next((place for place in self.queue if place.turn_id == turn_id), None)

    def appended(self, turn_id: str) -> tuple["Session", Place]:
        """The session with `turn_id` at its end, and its place there. Raises TransientError where the queue is full."""
        if len(self.queue) >= MAX_QUEUED_TURNS:
            raise TransientError(
                f"{len(self.queue)} turns of this session are waiting already", kind="overloaded", retry_after_s=5
            )
        place = Place(turn_id=turn_id, sequence=self.next_sequence)
        changed = self.model_copy(update={"next_sequence": self.next_sequence + 1, "queue": [*self.queue, place]})
        return changed, place

    def without(self, turn_id: str, *, completed: bool, stored_up_to: int = 0) -> "Session":
        """The session after `turn_id` ended; `stored_up_to`: the memory service has all turns up to this sequence."""
        place = self.place_of(turn_id)
        if place is None:
            return self
        recent = [done for done in self.recent if done.sequence > stored_up_to]
        if completed:
            recent = [*recent, Place(turn_id=turn_id, sequence=place.sequence)][-MAX_RECENT_TURNS:]
        queue = [waiting for waiting in self.queue if waiting.turn_id != turn_id]
        return self.model_copy(update={"queue": queue, "recent": recent})

    def with_paused(self, turn_id: str, *, paused: bool) -> "Session":
        queue = [
            place.model_copy(update={"paused": paused}) if place.turn_id == turn_id else place for place in self.queue
        ]
        return self.model_copy(update={"queue": queue})


def session_key(session_id: str) -> str:
    return f"session:{key_part(session_id)}"


def parse_session(item: StateItem) -> Session:
    return Session.model_validate(item.value)


def save_session(session_id: str, session: Session, etag: str | None) -> Save:
    """The write of `session`: under `etag`, or as a new key where there was none."""
    value = session.model_dump(mode="json", exclude_defaults=True)
    return Save(session_key(session_id), value, etag=etag, first_write=etag is None)


def check_owner(session: Session, session_id: str, user_id: str) -> None:
    """Raises TerminalError (kind `forbidden`) where the session is another user's."""
    if session.user_id != user_id:
        raise TerminalError(f"session {session_id!r} belongs to another user", kind="forbidden")
