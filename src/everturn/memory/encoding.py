"""How conversations and users lie in the state store: keys, and compact JSON.

`session:{id}` the index · `page:{id}:{number}` a sealed node · `event:{id}:{hash}` the page of an event without a
sequence · `user:{id}` a user. Turns and references are arrays, because an index is written with every event.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from everturn.contracts.memory import UserMemory
from everturn.memory.domain import Conversation, Node, NodeRef, StoredTurn


def session_key(session_id: str) -> str:
    return f"session:{_escaped(session_id)}"


def node_key(session_id: str, number: int) -> str:
    # No id can make this another session's key: the number stands behind the last colon.
    return f"page:{_escaped(session_id)}:{number}"


def marker_key(session_id: str, event_id: str) -> str:
    return f"event:{_escaped(session_id)}:{hashlib.sha256(event_id.encode()).hexdigest()[:32]}"


def user_key(user_id: str) -> str:
    return f"user:{_escaped(user_id)}"


def _escaped(value: str) -> str:
    """An id inside a key: Dapr refuses `||` there (400). Ids without `|` and `%` stay as they are."""
    return value.replace("%", "%25").replace("|", "%7C")


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user's key. `memory` is None while nothing is known.

    `applied` says of a session how many of its turns are in the summary, from the write of the summary until the
    session's index says so itself: this is what makes a turn count once.
    """

    memory: UserMemory | None = None
    applied: dict[str, int] = field(default_factory=dict)


def user_to_json(user: UserRecord) -> dict[str, Any]:
    return {"memory": None if user.memory is None else user.memory.model_dump(), "applied": user.applied}


def user_from_json(value: dict[str, Any]) -> UserRecord:
    memory = value["memory"]
    # As it was checked when it was stored: a later, tighter limit must not make it unreadable.
    return UserRecord(None if memory is None else UserMemory.model_construct(**memory), dict(value["applied"]))


def conversation_to_json(conversation: Conversation) -> dict[str, Any]:
    return {
        "owner": conversation.owner,
        "last_sequence": conversation.last_sequence,
        "count": conversation.count,
        "summarised": conversation.summarised,
        "nodes": conversation.nodes,
        "tail": [_turn_to_json(turn) for turn in conversation.tail],
        "levels": [[_ref_to_json(ref) for ref in level] for level in conversation.levels],
    }


def conversation_from_json(value: dict[str, Any]) -> Conversation:
    return Conversation(
        owner=value["owner"],
        last_sequence=value["last_sequence"],
        count=value["count"],
        summarised=value["summarised"],
        nodes=value["nodes"],
        tail=tuple(StoredTurn(*turn) for turn in value["tail"]),
        levels=tuple(tuple(NodeRef(*ref) for ref in level) for level in value["levels"]),
    )


def node_to_json(node: Node) -> dict[str, Any]:
    return {
        "number": node.number,
        "turns": [_turn_to_json(turn) for turn in node.turns],
        "refs": [_ref_to_json(ref) for ref in node.refs],
    }


def node_from_json(value: dict[str, Any]) -> Node:
    return Node(
        number=value["number"],
        turns=tuple(StoredTurn(*turn) for turn in value["turns"]),
        refs=tuple(NodeRef(*ref) for ref in value["refs"]),
    )


def _turn_to_json(turn: StoredTurn) -> list[Any]:
    return [
        turn.arrival,
        turn.turn_id,
        turn.event_id,
        turn.sequence,
        turn.message,
        turn.reply,
        turn.accepted_at,
        turn.replied_at,
    ]


def _ref_to_json(ref: NodeRef) -> list[int]:
    return [ref.number, ref.low, ref.high, ref.count]
