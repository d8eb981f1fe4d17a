"""A session as it is stored: who runs, who waits, and what has just ended. Pure: `queue` reads and writes it."""

from collections.abc import Collection
from itertools import takewhile
from typing import Any

import msgspec

from everturn.chat.facts import TurnRun, decoded, instance_id, whole
from everturn.contracts.chat import Overlap
from everturn.contracts.fields import key_part
from everturn.errors import TerminalError, TransientError

# A queue is one value that is written whole: longer ones would make every write of the session slow.
MAX_QUEUED_TURNS = 500
# Completed turns that are kept in sight until the memory service has them. More than any window of history holds of
# usual turns, and few enough to write on every change while the broker is away.
MAX_RECENT_TURNS = 200
# Messages that a turn takes up: it is one fact and one event with all their texts, and a sidecar takes 4 MiB at a time.
MAX_TAKEN_TURNS = 10
# Refused messages that the session remembers; of others their facts tell.
_MOST_REFUSED = 20
# Characters of a title, and of the text that it is made from: white space in it is made one blank.
_TITLE_CHARS, _TITLE_FROM = 80, 400


class QueuedTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn in a session. A paused one holds all behind it. `run` is None in what the release before wrote.

    `overlap`: what is still to be done for it, after a crash as well (`interrupt`, `merge`). `into`: the run, by its
    instance, that has taken its message up.
    """

    turn_id: str
    sequence: int
    run: int | None = None
    paused: bool = False
    overlap: str = ""
    into: str = ""
    unknown: dict[str, Any] = {}

    def is_of(self, run: TurnRun) -> bool:
        return self.turn_id == run.turn_id and self.run in (None, run.number)


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """`queue`: turns that have not ended, in order; `recent`: completed ones that the memory service may not have.

    `turns` is how many there have been, `last_turn` the last one, accepted at `last_at`; `title` begins the first one.
    `waiting`: those that let later ones pass while a person decides; they come back to the end of `queue`.
    `refused`: the ids of the last messages that came while a turn was there and did not want to wait.
    `unknown`, here and in each place, keeps the fields that a newer release wrote.
    """

    user_id: str
    version: int = 1
    next_sequence: int = 1
    queue: list[QueuedTurn] = []
    recent: list[QueuedTurn] = []
    turns: int = 0
    last_turn: str = ""
    last_at: str = ""
    title: str = ""
    refused: list[str] = []
    waiting: list[QueuedTurn] = []
    unknown: dict[str, Any] = {}

    @property
    def head(self) -> QueuedTurn | None:
        return self.queue[0] if self.queue else None

    @property
    def interrupted(self) -> list[QueuedTurn]:
        """The places before the last one that interrupts: those turns are to be cancelled."""
        last = max((number for number, place in enumerate(self.queue) if place.overlap == Overlap.INTERRUPT), default=0)
        return self.queue[:last]

    def is_interrupted(self, run: TurnRun) -> bool:
        return any(place.is_of(run) for place in self.interrupted)

    def place_of(self, run: TurnRun) -> QueuedTurn | None:
        return next((place for place in (*self.queue, *self.waiting) if place.is_of(run)), None)

    def appended(self, run: TurnRun) -> tuple["Session", QueuedTurn]:
        """The session with `run` at its end, and its place there. Raises TransientError if the queue is full."""
        if len(self.queue) >= MAX_QUEUED_TURNS:
            raise TransientError(
                f"{len(self.queue)} turns of this session are waiting already", kind="overloaded", retry_after_s=5
            )
        overlap = run.overlap if run.overlap in (Overlap.INTERRUPT, Overlap.MERGE) else ""
        place = QueuedTurn(run.turn_id, self.next_sequence, run.number, overlap=overlap)
        queue = [*self.queue, place]
        changed = msgspec.structs.replace(self, next_sequence=self.next_sequence + 1, queue=queue)
        return changed if run.number else _with_last(changed, run), place

    def aside(self, run: TurnRun) -> "Session":
        """The session with `run` out of the way of those behind it."""
        gone = [place for place in self.queue if place.is_of(run) or place.into == run.instance_id]
        queue = [place for place in self.queue if place not in gone]
        return msgspec.structs.replace(self, queue=queue, waiting=[*self.waiting, *gone]) if gone else self

    def returned(self, run: TurnRun) -> "Session":
        """The session with `run`, if it was out of the way, at its end, under a new number."""
        back = [place for place in self.waiting if place.is_of(run) or place.into == run.instance_id]
        if not back:
            return self
        numbered = [
            msgspec.structs.replace(place, sequence=self.next_sequence + number) for number, place in enumerate(back)
        ]
        return msgspec.structs.replace(
            self,
            queue=[*self.queue, *numbered],
            waiting=[place for place in self.waiting if place not in back],
            next_sequence=self.next_sequence + len(back),
        )

    def taking(self, run: TurnRun) -> "Session":
        """The session after `run`, if it is the head, has taken up the messages right behind it that want that.

        At most MAX_TAKEN_TURNS in all: the next one runs then, and takes up those behind it.
        """
        if self.head is None or not self.head.is_of(run) or self.is_interrupted(run):
            return self
        behind = self.queue[1 : 1 + MAX_TAKEN_TURNS]
        taken = list(takewhile(lambda place: place.overlap == Overlap.MERGE and not place.paused, behind))
        if all(place.into == run.instance_id for place in taken):
            return self
        taken = [msgspec.structs.replace(place, into=run.instance_id) for place in taken]
        return msgspec.structs.replace(self, queue=[self.head, *taken, *self.queue[1 + len(taken) :]])

    def taken_by(self, run: TurnRun) -> list[QueuedTurn]:
        return [place for place in (*self.queue, *self.waiting) if place.into == run.instance_id]

    def taker_of(self, place: QueuedTurn | None) -> str:
        """The id of the turn that has taken up the message at `place`; empty if there is none."""
        taker = self.carrier_of(place)
        return taker.turn_id if taker and taker is not place else ""

    def carrier_of(self, place: QueuedTurn | None) -> QueuedTurn | None:
        """The place of the turn that has taken up the message at `place`; `place` if there is none."""
        into = place.into if place else ""
        takers = (other for other in (*self.queue, *self.waiting) if instance_id(other.turn_id, other.run or 0) == into)
        return next(takers, place) if into else place

    def apart(self, run: TurnRun) -> "Session":
        """The session in which no other turn takes up the message of `run`, if none has."""
        place = self.place_of(run)
        if place is None or place.overlap != Overlap.MERGE or self.taker_of(place):
            return self
        queue = [msgspec.structs.replace(other, overlap="") if other is place else other for other in self.queue]
        return msgspec.structs.replace(self, queue=queue)

    def refusing(self, run: TurnRun) -> "Session":
        """The session with `run` refused, if it does not wait and a turn is there; else unchanged."""
        if run.turn_id in self.refused or self.head is None or run.overlap != Overlap.REJECT:
            return self
        return msgspec.structs.replace(self, refused=[*self.refused, run.turn_id][-_MOST_REFUSED:])

    def without(
        self, run: TurnRun, *, completed: bool, stored_up_to: int = 0, merged: Collection[str] = ()
    ) -> "Session":
        """The session after `run` ended, and the turns `merged` with it; others that it has taken are let go.

        `stored_up_to`: the memory service has all turns up to this sequence.
        """
        place = self.place_of(run)
        if place is None:
            return self
        recent = [done for done in self.recent if done.sequence > stored_up_to]
        if completed:
            recent = [*recent, QueuedTurn(run.turn_id, place.sequence, run.number)][-MAX_RECENT_TURNS:]
        queue, waiting = (
            [
                msgspec.structs.replace(other, into="") if other.into == run.instance_id else other
                for other in places
                if other is not place and not (other.turn_id in merged and not other.run)
            ]
            for places in (self.queue, self.waiting)
        )
        return msgspec.structs.replace(self, queue=queue, waiting=waiting, recent=recent)

    def with_paused(self, run: TurnRun, *, paused: bool) -> "Session":
        queue, waiting = (
            [msgspec.structs.replace(turn, paused=paused) if turn.is_of(run) else turn for turn in places]
            for places in (self.queue, self.waiting)
        )
        return msgspec.structs.replace(self, queue=queue, waiting=waiting)


def _with_last(session: Session, run: TurnRun) -> Session:
    """`session` with `run`, which has just got a place, as its last turn."""
    return msgspec.structs.replace(
        session,
        turns=(session.turns or session.next_sequence - 2) + 1,  # the release before had the sequence alone
        last_turn=run.turn_id,
        last_at=run.accepted.at,
        title=session.title or " ".join(run.accepted.text[:_TITLE_FROM].split())[:_TITLE_CHARS],
    )


_PLACES = ("queue", "recent", "waiting")


def session_key(session_id: str) -> str:
    return f"session:{key_part(session_id)}"


def parse_session(value: dict[str, Any]) -> Session:
    """A stored session, also of another release."""
    session = decoded(value, Session)
    turns = {name: [decoded(turn, QueuedTurn) for turn in value.get(name, ())] for name in _PLACES}
    whole: Session = msgspec.structs.replace(session, **turns)
    return whole


def stored_session(session: Session) -> dict[str, Any]:
    """The value as it is stored."""
    turns = {name: [whole(turn) for turn in getattr(session, name)] for name in _PLACES}
    return {**whole(session), **{name: places for name, places in turns.items() if places}, "version": session.version}


def check_owner(session: Session, session_id: str, user_id: str) -> None:
    """Raises TerminalError (kind `forbidden`) if the session is another user's."""
    if session.user_id != user_id:
        raise TerminalError(f"session {session_id!r} belongs to another user", kind="forbidden")


def check_not_busy(session: Session, run: TurnRun) -> None:
    """Raises TerminalError (kind `busy`) if `run` does not wait and a turn of the session has not ended."""
    if run.turn_id in session.refusing(run).refused:
        raise busy()


def busy() -> TerminalError:
    return TerminalError(
        "a turn of this session has not ended, and the message does not wait for it (overlap is reject)", kind="busy"
    )


def check_not_taken(session: Session, run: TurnRun) -> None:
    """Raises TerminalError (kind `merged`) if another turn has taken up the message of `run`."""
    if taker := session.taker_of(session.place_of(run)):
        raise TerminalError(f"turn {run.turn_id!r} is merged into turn {taker!r}, and ends with it", kind="merged")
