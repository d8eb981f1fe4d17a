"""Conversations in the state store: an event takes effect by one write of its session's index under an ETag.

Only that key changes atomically (Redis has no more to offer). Sealed nodes and markers are written before it and mean
nothing until it names them, so a crash at any point leaves either the whole event or none of it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from everturn.errors import ConflictError
from everturn.memory.domain import Arrival, Conversation, Node, with_room, with_turn
from everturn.memory.encoding import (
    conversation_from_json,
    conversation_to_json,
    marker_key,
    node_key,
    node_to_json,
    session_key,
)
from everturn.memory.reading import Reader
from everturn.sidecar.client import DaprClient, Save, StateItem

# Each lost race means that another writer got on, so this is the number of rivals that a write can outlast.
_MAX_RACES = 20


class Outcome(StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an event, and the conversation after it."""

    outcome: Outcome
    conversation: Conversation


class Conversations:
    """All methods raise TransientError where the store cannot be used, ConflictError where too many write at once."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr
        self._reader = Reader(dapr)

    async def find(self, session_id: str) -> Conversation | None:
        """The index of a conversation; None where there is none."""
        item = await self._dapr.get_state(session_key(session_id))
        return None if item is None else conversation_from_json(item.value)

    async def store(self, arrival: Arrival) -> Stored:
        """Add a turn to its conversation, once however often it arrives.

        Idempotent by turn id and sequence, or by event id: both are looked for among the turns themselves. Another
        user's turn is dropped.
        """
        for _ in range(_MAX_RACES):
            try:
                return await self._store_once(arrival)
            except ConflictError:
                continue
        raise ConflictError(f"session {arrival.session_id!r} has too many writers")

    async def acknowledge(self, session_id: str, summarised: int) -> Conversation | None:
        """Note that the first `summarised` turns are in the summary; the conversation after that. Never goes back."""
        for _ in range(_MAX_RACES):
            item = await self._dapr.get_state(session_key(session_id))
            if item is None:
                return None
            conversation = conversation_from_json(item.value)
            if conversation.summarised >= summarised:
                return conversation
            conversation = replace(conversation, summarised=summarised)
            try:
                await self._dapr.save_state(_index_save(session_id, conversation, item))
            except ConflictError:
                continue
            return conversation
        raise ConflictError(f"session {session_id!r} has too many writers")

    async def _store_once(self, arrival: Arrival) -> Stored:
        item = await self._dapr.get_state(session_key(arrival.session_id))
        found = Conversation(arrival.user_id) if item is None else conversation_from_json(item.value)
        if found.owner != arrival.user_id:
            return Stored(Outcome.DROPPED, found)
        roomy, sealed = with_room(found)
        if await self._is_known(arrival, found, roomy.nodes):
            return Stored(Outcome.DUPLICATE, found)
        conversation = with_turn(roomy, arrival)
        await self._write(arrival.session_id, conversation, sealed, item)
        return Stored(Outcome.STORED, conversation)

    async def _is_known(self, arrival: Arrival, conversation: Conversation, target: int) -> bool:
        if arrival.sequence is None:
            return await self._is_marked(arrival, conversation, target)
        if arrival.sequence > conversation.last_sequence:
            return False
        if any(turn.came_from(arrival) for turn in conversation.tail):
            return True
        turns = await self._reader.at_sequence(arrival.session_id, conversation, arrival.sequence)
        return any(turn.came_from(arrival) for turn in turns)

    async def _is_marked(self, arrival: Arrival, conversation: Conversation, target: int) -> bool:
        """Whether an event without a sequence is stored; if not, its marker names the page `target` from now on.

        The marker is written before the index and only says where to look: what counts is whether the turn is there.
        The tail is the page that it will be, number `conversation.nodes`.
        """
        assert arrival.event_id is not None
        key = marker_key(arrival.session_id, arrival.event_id)
        marker = await self._dapr.get_state(key)
        if marker is None:
            await self._dapr.save_state(Save(key, target, first_write=True))
            return False
        page = int(marker.value)
        if page > max(conversation.nodes, target):
            raise ConflictError("the index was read before a newer one was written")
        turns = conversation.tail
        if page < conversation.nodes:
            turns = (await self._reader.node(arrival.session_id, page)).turns
        if any(turn.came_from(arrival) for turn in turns):
            return True
        if page != target:
            await self._dapr.save_state(Save(key, target, etag=marker.etag))
        return False

    async def _write(
        self, session_id: str, conversation: Conversation, sealed: tuple[Node, ...], item: StateItem | None
    ) -> None:
        index = _index_save(session_id, conversation, item)
        if not sealed:
            await self._dapr.save_state(index)
            return
        nodes = [Save(node_key(session_id, node.number), node_to_json(node)) for node in sealed]
        await self._dapr.transact([*nodes, index])


def _index_save(session_id: str, conversation: Conversation, item: StateItem | None) -> Save:
    value = conversation_to_json(conversation)
    if item is None:
        return Save(session_key(session_id), value, first_write=True)
    return Save(session_key(session_id), value, etag=item.etag)
