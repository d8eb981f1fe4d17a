"""What the memory service knows of a conversation, and how an event changes it. Pure.

A conversation is a log of turns in order of arrival, read in order of `sequence`. The newest turns are its *tail*,
inside the index (the one key whose write makes an event count). A full tail is *sealed* into a node of its own, an
immutable page; sixteen pages are sealed into a node that lists them, and so on, so that the index stays small for ever.
What is sealed depends on the index alone: two writers who seal the same tail write the same bytes under the same key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# Every event rewrites the tail, every read of a page brings one whole page: a middle between the two.
PAGE_TURNS = 16
PAGE_CHARS = 32_000
# How many nodes the index lists on each level before it seals them into one.
FANOUT = 16


@dataclass(frozen=True, slots=True)
class Arrival:
    """A turn as its event tells it, checked. It is known by its `event_id` where it has one, else by its `turn_id`."""

    user_id: str
    session_id: str
    turn_id: str | None
    sequence: int | None
    event_id: str | None
    message: str
    reply: str
    accepted_at: str
    replied_at: str


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn at its place: number `arrival` of its conversation, from 0. `event_id` is as in `Arrival`."""

    arrival: int
    turn_id: str | None
    event_id: str | None
    sequence: int
    message: str
    reply: str
    accepted_at: str
    replied_at: str

    @property
    def chars(self) -> int:
        return len(self.message) + len(self.reply)

    def came_from(self, arrival: Arrival) -> bool:
        """Whether `arrival` tells of this very turn."""
        if arrival.event_id is not None:
            return self.event_id == arrival.event_id
        return self.event_id is None and self.turn_id == arrival.turn_id


@dataclass(frozen=True, slots=True)
class NodeRef:
    """Names the node `number`: `count` turns, their sequences from `low` to `high`."""

    number: int
    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Node:
    """What is sealed under `number`: either turns (a page) or references to older nodes, in order of arrival."""

    number: int
    turns: tuple[StoredTurn, ...] = ()
    refs: tuple[NodeRef, ...] = ()

    @property
    def ref(self) -> NodeRef:
        lows = [turn.sequence for turn in self.turns] + [ref.low for ref in self.refs]
        highs = [turn.sequence for turn in self.turns] + [ref.high for ref in self.refs]
        return NodeRef(self.number, min(lows), max(highs), len(self.turns) + sum(ref.count for ref in self.refs))


@dataclass(frozen=True, slots=True)
class Conversation:
    """The index of a conversation.

    `owner` is the user of its first event. `count` turns have arrived, the first `summarised` of them are in the
    summary. `levels[0]` lists pages, each further level lists nodes of the one before; `nodes` have been sealed.
    """

    owner: str
    last_sequence: int = 0
    count: int = 0
    summarised: int = 0
    nodes: int = 0
    tail: tuple[StoredTurn, ...] = ()
    levels: tuple[tuple[NodeRef, ...], ...] = ()

    @property
    def roots(self) -> tuple[NodeRef, ...]:
        """The nodes that the index names, in order of arrival: all turns but the tail's are below them."""
        return tuple(ref for level in reversed(self.levels) for ref in level)

    @property
    def is_summarised(self) -> bool:
        return self.summarised >= self.count


def with_room(conversation: Conversation) -> tuple[Conversation, tuple[Node, ...]]:
    """The conversation with room in its tail, and the nodes that must be written before it names them."""
    tail = conversation.tail
    if len(tail) < PAGE_TURNS and sum(turn.chars for turn in tail) < PAGE_CHARS:
        return conversation, ()
    page = Node(conversation.nodes, turns=tail)
    levels, above = _pushed(conversation.levels, page.ref, page.number + 1)
    sealed = (page, *above)
    return replace(conversation, tail=(), levels=levels, nodes=conversation.nodes + len(sealed)), sealed


def with_turn(conversation: Conversation, arrival: Arrival) -> Conversation:
    """The conversation with a turn that is new to it, at its `sequence`, or else at the end.

    Where the number is taken the turn stands behind those that came before it.
    """
    sequence = arrival.sequence if arrival.sequence is not None else conversation.last_sequence + 1
    turn = StoredTurn(
        arrival=conversation.count,
        turn_id=arrival.turn_id,
        event_id=arrival.event_id,
        sequence=sequence,
        message=arrival.message,
        reply=arrival.reply,
        accepted_at=arrival.accepted_at,
        replied_at=arrival.replied_at,
    )
    return replace(
        conversation,
        tail=(*conversation.tail, turn),
        count=conversation.count + 1,
        last_sequence=max(conversation.last_sequence, sequence),
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
    full = Node(next_number, refs=lowest)
    upper, above = _pushed(upper, full.ref, next_number + 1)
    return ((ref,), *upper), (full, *above)
