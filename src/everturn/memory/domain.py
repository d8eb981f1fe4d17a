"""What the memory service knows of a conversation and of a user, and how an event changes it. Pure.

A conversation is a log of turns in order of arrival, read in order of `sequence`. The newest turns are its *tail*,
inside the index (the one key whose write makes an event count). A full tail is *sealed* into a node of its own, an
immutable page; sixteen pages are sealed into a node that lists them, and so on, so that the index stays small for ever.
What is sealed depends on the index alone: two writers who seal the same tail write the same bytes under the same key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, field, structs

# Every event rewrites the tail, every read of a page brings one whole page: a middle between the two.
PAGE_TURNS = 16
PAGE_CHARS = 32_000
# How many nodes the index lists on each level before it seals them into one.
FANOUT = 16


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A shape of the state store. `unknown` has the fields that a newer release wrote: they are written back."""

    unknown: dict[str, Any] = {}


class MergedMessage(Record, frozen=True, kw_only=True):
    """A message of another turn, which the reply answers as well; `accepted_at` is the event's `occurred_at`."""

    turn_id: str
    sequence: int
    text: str = field(name="user_message")
    accepted_at: str = field(name="occurred_at")


class Turn(Record, frozen=True, kw_only=True):
    """What an event says of a turn and is kept, under the event's own names: a new field of it goes here."""

    turn_id: str | None = None
    text: str = field(name="user_message")
    reply: str = field(name="assistant_reply")
    accepted_at: str
    replied_at: str = field(name="occurred_at")
    merged: tuple[MergedMessage, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What the user said, in its order."""
        return (self.text, *(message.text for message in self.merged))


@dataclass(frozen=True, slots=True)
class ByTurn:
    """A turn that is known by its id and has a place of its own in the conversation."""

    turn_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ByEvent:
    """A turn that is known by the id of its event alone, and goes to the end."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A turn as its event brings it, checked; `key` is what it is known by when it comes again.

    `trace`: the `traceparent` of the event.
    """

    user_id: str
    session_id: str
    key: ByTurn | ByEvent
    turn: Turn
    trace: str | None = None


class StoredTurn(Turn, frozen=True, kw_only=True):
    """A turn at its place: number `arrival` of its conversation, from 0. `event_id` if that is what it is known by."""

    arrival: int
    sequence: int
    event_id: str | None = None

    @property
    def chars(self) -> int:
        return sum(map(len, self.texts)) + len(self.reply)

    def is_known_by(self, key: ByTurn | ByEvent) -> bool:
        if isinstance(key, ByEvent):
            return self.event_id == key.event_id
        return self.event_id is None and self.turn_id == key.turn_id


class Memory(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is remembered of a user, as the contract has it."""

    name: str
    preferred_style: str
    user_summary: str


class UserRecord(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A user's key. `memory` is None while nothing is known.

    `applied` says of a session how many of its turns are in the summary, from the write of the summary until the
    session's index says so itself: this is what makes a turn count once.
    """

    memory: Memory | None = None
    applied: dict[str, int] = {}


class NodeRef(Record, frozen=True, kw_only=True):
    """Names the node `number`: `count` turns, their sequences from `low` to `high`."""

    number: int
    low: int
    high: int
    count: int


class Node(Record, frozen=True, kw_only=True):
    """What is sealed under `number`: either turns (a page) or references to older nodes, in order of arrival."""

    number: int
    turns: tuple[StoredTurn, ...] = ()
    refs: tuple[NodeRef, ...] = field(default=(), name="nodes")

    @property
    def ref(self) -> NodeRef:
        lows = [turn.sequence for turn in self.turns] + [ref.low for ref in self.refs]
        highs = [turn.sequence for turn in self.turns] + [ref.high for ref in self.refs]
        count = len(self.turns) + sum(ref.count for ref in self.refs)
        return NodeRef(number=self.number, low=min(lows), high=max(highs), count=count)


class Conversation(Record, frozen=True, kw_only=True):
    """The index of a conversation.

    `owner` is the user of its first event. `count` turns have arrived, the first `summarised` of them are in the
    summary. `levels[0]` lists pages, each further level lists nodes of the one before; `nodes` have been sealed.
    """

    owner: str
    last_sequence: int = 0
    count: int = 0
    summarised: int = 0
    nodes: int = 0
    tail: tuple[StoredTurn, ...] = field(default=(), name="turns")
    levels: tuple[tuple[NodeRef, ...], ...] = ()

    @property
    def roots(self) -> tuple[NodeRef, ...]:
        """The nodes that the index names, in order of arrival: all turns but the tail's are below them."""
        return tuple(ref for level in reversed(self.levels) for ref in level)

    @property
    def new_turns(self) -> int:
        """How many turns are not in the summary yet."""
        return self.count - self.summarised

    @property
    def is_summarised(self) -> bool:
        return self.new_turns <= 0


def with_room(conversation: Conversation) -> tuple[Conversation, tuple[Node, ...]]:
    """The conversation with room in its tail, and the nodes that must be written before it names them."""
    tail = conversation.tail
    if len(tail) < PAGE_TURNS and sum(turn.chars for turn in tail) < PAGE_CHARS:
        return conversation, ()
    page = Node(number=conversation.nodes, turns=tail)
    levels, above = _pushed(conversation.levels, page.ref, page.number + 1)
    sealed = (page, *above)
    return structs.replace(conversation, tail=(), levels=levels, nodes=conversation.nodes + len(sealed)), sealed


def with_turn(conversation: Conversation, arrival: Arrival) -> Conversation:
    """The conversation with a turn that is new to it, at its `sequence`, or else at the end.

    If the number is taken, the turn is after those that came before it.
    """
    key = arrival.key
    turn = StoredTurn(
        **structs.asdict(arrival.turn),
        arrival=conversation.count,
        sequence=key.sequence if isinstance(key, ByTurn) else conversation.last_sequence + 1,
        event_id=key.event_id if isinstance(key, ByEvent) else None,
    )
    return structs.replace(
        conversation,
        tail=(*conversation.tail, turn),
        count=conversation.count + 1,
        last_sequence=max(conversation.last_sequence, turn.sequence),
    )


def in_order(turns: Iterable[StoredTurn]) -> list[StoredTurn]:
    """Turns in the order in which a conversation is read."""
    return sorted(turns, key=lambda turn: (turn.sequence, turn.arrival))


def settled(turns: Iterable[StoredTurn], unread: Sequence[NodeRef]) -> list[StoredTurn]:
    """Those of `turns`, in reading order, behind which nothing of the `unread` nodes can stand in between."""
    highest = max((ref.high for ref in unread), default=0)
    return in_order(turn for turn in turns if turn.sequence > highest)


def last_turns(turns: Sequence[StoredTurn], chars: int) -> list[StoredTurn]:
    """As many of the last `turns` as fit into so many characters; the last one in any case."""
    room, first = chars, len(turns)
    for turn in reversed(turns):
        room -= turn.chars
        if room < 0 and first < len(turns):
            break
        first -= 1
    return list(turns[first:])


def _pushed(
    levels: tuple[tuple[NodeRef, ...], ...], ref: NodeRef, next_number: int
) -> tuple[tuple[tuple[NodeRef, ...], ...], tuple[Node, ...]]:
    if not levels:
        return ((ref,),), ()
    lowest, upper = levels[0], levels[1:]
    if len(lowest) < FANOUT:
        return ((*lowest, ref), *upper), ()
    full = Node(number=next_number, refs=lowest)
    upper, above = _pushed(upper, full.ref, next_number + 1)
    return ((ref,), *upper), (full, *above)
