"""Conversations and users in the state store, changed under ETags, and the shapes in which they are stored.

`session:{id}` the index · `page:{id}:{number}` a sealed node · `event:{id}:{hash}` the page of an event without a
sequence · `user:{id}` a user. An event takes effect by one write of its session's index: only that key changes
atomically (Redis has no more to offer). Sealed nodes and markers are written before it and mean nothing until it names
them, so a crash leaves either the whole event or none of it. A read takes no more nodes than a question needs.

A field that is added needs no new version: a reader that does not know it writes it back as it was. Version 1 had no
version in it, and arrays for turns and references.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import structs

from everturn.contracts.fields import key_part
from everturn.contracts.memory import UserMemory, default_memory
from everturn.dapr.client import Save, SidecarClient, Versioned, retry_conflicts
from everturn.errors import ConflictError, TransientError
from everturn.memory.domain import (
    Arrival,
    ByEvent,
    ByTurn,
    Conversation,
    Memory,
    Node,
    NodeRef,
    Record,
    StoredTurn,
    UserRecord,
    in_order,
    last_turns,
    settled,
    with_room,
    with_turn,
)

VERSION = 2

R = TypeVar("R", bound=Record)

_TURN_1 = (
    *("arrival", "turn_id", "event_id", "sequence"),
    *("user_message", "assistant_reply", "accepted_at", "occurred_at"),
)
_REF_1 = ("number", "low", "high", "count")
_NAMES_1 = {"tail": "turns", "refs": "nodes"}


def session_key(session_id: str) -> str:
    return f"session:{key_part(session_id)}"


def node_key(session_id: str, number: int) -> str:
    # No id can make this another session's key: the number is after the last colon.
    return f"page:{key_part(session_id)}:{number}"


def marker_key(session_id: str, event_id: str) -> str:
    return f"event:{key_part(session_id)}:{hashlib.sha256(event_id.encode()).hexdigest()[:32]}"


def user_key(user_id: str) -> str:
    return f"user:{key_part(user_id)}"


def saved_over(key: str, value: Any, read: Versioned[Any] | None) -> Save:
    """The write of `key` that loses if anybody else has written since it was `read` (None: it was not there)."""
    return Save(key, value, etag=read.etag if read else None, first_write=read is None)


def to_json(record: Conversation | Node | UserRecord) -> dict[str, Any]:
    return {"version": VERSION, **_with_unknown(record, msgspec.to_builtins(record))}


def conversation_from_json(value: dict[str, Any]) -> Conversation:
    """Raises TransientError, as the others do, for what a newer release wrote in another way."""
    return _read(value, Conversation)


def node_from_json(value: dict[str, Any]) -> Node:
    return _read(value, Node)


def user_from_json(value: dict[str, Any]) -> UserRecord:
    return _read(value, UserRecord)


def _current(value: dict[str, Any]) -> dict[str, Any]:
    """`value` as this version has it."""
    version = value.get("version", 1)
    if version > VERSION:
        raise TransientError(f"this was stored by a newer release (version {version})", kind="newer_release")
    if version == VERSION:
        return value
    return {_NAMES_1.get(name, name): _unpacked_1(name, field) for name, field in value.items()}


def _unpacked_1(name: str, field: Any) -> Any:
    match name:
        case "tail" | "turns":
            return [dict(zip(_TURN_1, turn, strict=True)) for turn in field]
        case "refs":
            return [dict(zip(_REF_1, ref, strict=True)) for ref in field]
        case "levels":
            return [_unpacked_1("refs", level) for level in field]
    return field


def _read(value: dict[str, Any], kind: type[R]) -> R:
    body = _current(value)
    kept: R = _keeping_unknown(msgspec.convert(body, kind), body)
    return kept


def _keeping_unknown(found: Any, given: Any) -> Any:
    """`found`, a record or a tuple of them, with those fields of `given`, which it was read from, that it has not."""
    if isinstance(found, tuple):
        return tuple(map(_keeping_unknown, found, given))
    shape = _shape_of(found.__class__)
    kept = {
        name: _keeping_unknown(inner, given[encoded])
        for name, encoded in shape.with_records
        if (inner := getattr(found, name))
    }
    if not shape.known.issuperset(given):
        kept["unknown"] = {name: value for name, value in given.items() if name not in shape.known}
    return structs.replace(found, **kept) if kept else found


def _with_unknown(record: Any, body: Any) -> Any:
    """`body`, which is `record` in JSON, with the unknown fields among the others."""
    if isinstance(record, tuple):
        return list(map(_with_unknown, record, body))
    for name, encoded in _shape_of(record.__class__).with_records:
        if inner := getattr(record, name):
            body[encoded] = _with_unknown(inner, body[encoded])
    unknown = body.pop("unknown", None)
    return {**unknown, **body} if unknown else body


class _Shape(NamedTuple):
    """The `known` names in JSON; the fields `with_records` in them, by name and name in JSON."""

    known: frozenset[str]
    with_records: tuple[tuple[str, str], ...]


@cache
def _shape_of(kind: type[Record]) -> _Shape:
    fields = structs.fields(kind)
    with_records = tuple((field.name, field.encode_name) for field in fields if _has_records(field.type))
    return _Shape(frozenset({"version", *(field.encode_name for field in fields)}), with_records)


def _has_records(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Record)
    return any(map(_has_records, get_args(annotation)))


# How far the sequence of a turn may be ahead of those that are stored: events overtake each other, but never so many.
MAX_AHEAD = 1_000_000
# Nodes in one request to the store: about a megabyte if every page is full.
_BULK = 32
# Pages that a window reads at a time: most windows need no more.
_WINDOW_BULK = 4


class Outcome(StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an event, and the conversation after it. `reason`: why it was dropped."""

    outcome: Outcome
    conversation: Conversation
    reason: str | None = None


class Conversations:
    """All methods raise TransientError if the store cannot be used, if too many write at once, or if it does not (yet)
    have what an index names."""

    def __init__(self, dapr: SidecarClient) -> None:
        self._dapr = dapr

    async def find(self, session_id: str) -> Conversation | None:
        """The index of a conversation; None if there is none."""
        found = await self._find(session_id)
        return found.value if found else None

    async def store(self, arrival: Arrival) -> Stored:
        """Add a turn to its conversation, once however often it arrives.

        Idempotent by turn id and sequence, or by event id: both are looked for among the turns themselves. Another
        user's turn is dropped, and one that is far ahead of the session: it would stay the last for ever.
        """
        return await retry_conflicts(lambda: self._store(arrival), f"session {arrival.session_id!r}")

    async def acknowledge(self, session_id: str, summarised: int) -> Conversation | None:
        """Note that the first `summarised` turns are in the summary; the conversation after that. Never goes back."""

        async def acknowledge_once() -> Conversation | None:
            read = await self._find(session_id)
            if read is None or read.value.summarised >= summarised:
                return read.value if read else None
            conversation = structs.replace(read.value, summarised=summarised)
            await self._dapr.save_state(saved_over(session_key(session_id), to_json(conversation), read))
            return conversation

        return await retry_conflicts(acknowledge_once, f"session {session_id!r}")

    async def history(self, session_id: str, conversation: Conversation) -> list[StoredTurn]:
        """The whole conversation, in order of `sequence`."""
        return in_order([*await self._sealed(session_id, conversation), *conversation.tail])

    async def window(self, session_id: str, conversation: Conversation, chars: int) -> list[StoredTurn]:
        """The last turns that fit into `chars` characters, the very last in any case, in order of `sequence`."""
        turns, unread = list(conversation.tail), list(conversation.roots)
        while unread and sum(turn.chars for turn in settled(turns, unread)) <= chars:
            unread.sort(key=lambda ref: ref.high)
            nodes = await self._nodes(session_id, [ref.number for ref in unread[-_WINDOW_BULK:]])
            del unread[-_WINDOW_BULK:]
            turns.extend(turn for node in nodes for turn in node.turns)
            unread.extend(ref for node in nodes for ref in node.refs)
        return last_turns(settled(turns, unread), chars)

    async def arrived(self, session_id: str, conversation: Conversation, start: int, stop: int) -> list[StoredTurn]:
        """The turns that arrived as number `start` up to `stop` (from 0, without `stop`), in order of arrival."""
        before, refs = 0, list(conversation.roots)
        turns: list[StoredTurn] = []
        while refs:
            ref = refs.pop(0)
            if before + ref.count <= start or before >= stop:
                before += ref.count
                continue
            (node,) = await self._nodes(session_id, [ref.number])
            refs[:0] = node.refs
            turns.extend(node.turns[max(0, start - before) : max(0, stop - before)])
            before += len(node.turns)
        turns.extend(conversation.tail[max(0, start - before) : max(0, stop - before)])
        return turns

    async def _find(self, session_id: str) -> Versioned[Conversation] | None:
        found = await self._dapr.get_state(session_key(session_id))
        return found and Versioned(conversation_from_json(found.value), found.etag)

    async def _store(self, arrival: Arrival) -> Stored:
        read = await self._find(arrival.session_id)
        found = read.value if read else Conversation(owner=arrival.user_id)
        if found.owner != arrival.user_id:
            return Stored(Outcome.DROPPED, found, "the session belongs to another user")
        if isinstance(arrival.key, ByTurn) and arrival.key.sequence > found.last_sequence + MAX_AHEAD:
            return Stored(Outcome.DROPPED, found, f"its sequence is more than {MAX_AHEAD} ahead of its session")
        roomy, sealed = with_room(found)
        if await self._is_known(arrival, found, roomy.nodes):
            return Stored(Outcome.DUPLICATE, found)
        conversation = with_turn(roomy, arrival)
        await self._write(arrival.session_id, conversation, sealed, read)
        return Stored(Outcome.STORED, conversation)

    async def _is_known(self, arrival: Arrival, conversation: Conversation, target: int) -> bool:
        match arrival.key:
            case ByEvent() as key:
                return await self._is_marked(arrival.session_id, key, conversation, target)
            case ByTurn() as key:
                if key.sequence > conversation.last_sequence:
                    return False
                if any(turn.is_known_by(key) for turn in conversation.tail):
                    return True
                turns = await self._sealed(arrival.session_id, conversation, key.sequence)
                return any(turn.is_known_by(key) for turn in turns)

    async def _is_marked(self, session_id: str, key: ByEvent, conversation: Conversation, target: int) -> bool:
        """Whether an event without a sequence is stored; if not, its marker names the page `target` from now on.

        The marker is written before the index and only says where to look: what counts is whether the turn is there.
        The tail is the page that it will be, number `conversation.nodes`.
        """
        name = marker_key(session_id, key.event_id)
        marker = await self._dapr.get_state(name)
        if marker is None:
            await self._dapr.save_state(Save(name, target, first_write=True))
            return False
        page = int(marker.value)
        if page > max(conversation.nodes, target):
            raise ConflictError("the index was read before a newer one was written")
        turns = conversation.tail
        if page < conversation.nodes:
            (node,) = await self._nodes(session_id, [page])
            turns = node.turns
        if any(turn.is_known_by(key) for turn in turns):
            return True
        if page != target:
            await self._dapr.save_state(Save(name, target, etag=marker.etag))
        return False

    async def _write(
        self, session_id: str, conversation: Conversation, sealed: tuple[Node, ...], read: Versioned[Any] | None
    ) -> None:
        index = saved_over(session_key(session_id), to_json(conversation), read)
        if not sealed:
            await self._dapr.save_state(index)
            return
        nodes = [Save(node_key(session_id, node.number), to_json(node)) for node in sealed]
        await self._dapr.transact([*nodes, index])

    async def _sealed(
        self, session_id: str, conversation: Conversation, sequence: int | None = None
    ) -> list[StoredTurn]:
        """All sealed turns, or some among which those with that `sequence` are."""
        refs: Sequence[NodeRef] = conversation.roots
        turns: list[StoredTurn] = []
        while refs:
            if sequence is not None:
                refs = [ref for ref in refs if ref.low <= sequence <= ref.high]
            nodes = await self._nodes(session_id, [ref.number for ref in refs])
            turns.extend(turn for node in nodes for turn in node.turns)
            refs = [ref for node in nodes for ref in node.refs]
        return turns

    async def _nodes(self, session_id: str, numbers: Sequence[int]) -> list[Node]:
        nodes: list[Node] = []
        for start in range(0, len(numbers), _BULK):
            keys = [node_key(session_id, number) for number in numbers[start : start + _BULK]]
            found = await self._dapr.get_states(keys)
            for key in keys:
                if key not in found:
                    raise TransientError(f"state {key!r} is missing", kind="missing_page")
                nodes.append(node_from_json(found[key].value))
        return nodes


class Users:
    """All methods raise TransientError if the store cannot be read or written, never taking that for a new user."""

    def __init__(self, dapr: SidecarClient) -> None:
        self._dapr = dapr

    async def memory(self, user_id: str) -> UserMemory:
        """What is remembered; the default of the contract if nothing is."""
        found = memory_of(user_id, await self.read(user_id))
        # As it was checked when it was stored: a later, tighter limit must not make it unreadable.
        return UserMemory.model_construct(
            name=found.name, preferred_style=found.preferred_style, user_summary=found.user_summary
        )

    async def read(self, user_id: str) -> Versioned[UserRecord] | None:
        found = await self._dapr.get_state(user_key(user_id))
        return found and Versioned(user_from_json(found.value), found.etag)

    async def initialize(self, user_id: str, memory: UserMemory) -> None:
        """Replace what is remembered. A summary that is being made begins again from the new one."""
        given = Memory(**memory.model_dump())
        await self._change(user_id, lambda record: structs.replace(record, memory=given))

    async def apply_summary(
        self, user_id: str, read: Versioned[UserRecord] | None, session_id: str, summary: str, turns: int
    ) -> None:
        """Write a summary made from what was `read` that has the first `turns` turns of the session in it.

        One write, of the summary and of the note of what is in it. Raises ConflictError, and writes nothing, if the
        key has changed since it was `read`.
        """
        record = read.value if read else UserRecord()
        memory = structs.replace(memory_of(user_id, read), user_summary=summary)
        changed = structs.replace(record, memory=memory, applied={**record.applied, session_id: turns})
        await self._dapr.save_state(saved_over(user_key(user_id), to_json(changed), read))

    async def forget_applied(self, user_id: str, session_id: str, turns: int) -> None:
        """Drop the note of a session whose own index says by now that the first `turns` turns are in the summary."""

        def without(record: UserRecord) -> UserRecord:
            if record.applied.get(session_id, turns + 1) > turns:
                return record
            applied = {key: value for key, value in record.applied.items() if key != session_id}
            return structs.replace(record, applied=applied)

        await self._change(user_id, without)

    async def _change(self, user_id: str, change: Callable[[UserRecord], UserRecord]) -> None:
        async def change_once() -> None:
            read = await self.read(user_id)
            record = read.value if read else UserRecord()
            changed = change(record)
            if changed != record:
                await self._dapr.save_state(saved_over(user_key(user_id), to_json(changed), read))

        await retry_conflicts(change_once, f"user {user_id!r}")


def memory_of(user_id: str, read: Versioned[UserRecord] | None) -> Memory:
    """What is remembered of a user whose key was `read`; the default of the contract if nothing is."""
    if read is not None and read.value.memory is not None:
        return read.value.memory
    return Memory(**default_memory(user_id).model_dump())


@dataclass(frozen=True, slots=True)
class Stores:
    conversations: Conversations
    users: Users

    @classmethod
    def create(cls, dapr: SidecarClient) -> "Stores":
        return cls(Conversations(dapr), Users(dapr))
