"""The routes for clients and for the chat service: memories and conversations."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from everturn.contracts.memory import ConversationEntry, ConversationHistory, UserMemory
from everturn.memory.domain import Conversation, StoredTurn
from everturn.memory.stores import Stores
from everturn.web.paths import PathId
from everturn.web.problems import Problem, problem_responses


class Initialized(BaseModel):
    status: Literal["success"] = "success"
    user_id: str
    metadata: UserMemory


class PlacedEntry(ConversationEntry):
    """An entry and the turn that it belongs to; `turn_id` is null where its event named none."""

    turn_id: str | None
    sequence: int


class ConversationWindow(BaseModel):
    """The end of a conversation. `last_sequence` is the highest of the whole; 0 where it is empty.

    `truncated`: there are turns before those that are given.
    """

    history: list[PlacedEntry]
    last_sequence: int
    truncated: bool


def add_memory_routes(router: APIRouter, stores: Stores) -> None:
    """The routes of the contract for clients."""

    @router.get("/memories/{user_id}", tags=["memories"], summary="What is remembered of a user", responses=_STORE_AWAY)
    async def get_memory(user_id: PathId) -> UserMemory:
        return (await stores.users.read(user_id)).memory

    @router.post(
        "/memories/{user_id}/initialize",
        tags=["memories"],
        summary="Replace what is remembered of a user",
        responses=problem_responses(413, 503),
    )
    async def initialize_memory(user_id: PathId, memory: UserMemory) -> Initialized:
        await stores.users.initialize(user_id, memory)
        return Initialized(user_id=user_id, metadata=memory)

    @router.get(
        "/conversations/{session_id}",
        tags=["conversations"],
        summary="A conversation, or the end of it",
        responses=problem_responses(403, 503),
        response_model=ConversationHistory | ConversationWindow,
    )
    async def get_conversation(
        session_id: PathId, window_chars: WindowChars = None, user_id: OwnerId = None
    ) -> Response:
        conversation = await stores.conversations.find(session_id)
        if conversation is not None and user_id not in (None, conversation.owner):
            raise Problem(403, f"session {session_id!r} belongs to another user")
        body = await _conversation(stores, session_id, conversation, window_chars)
        # Encoded here, once: a long history would be copied several times on its way through response models.
        return Response(body.model_dump_json(), media_type="application/json")


WindowChars = Annotated[
    int | None,
    Query(
        ge=0,
        le=2**53,
        description="Only the last turns that fit into so many characters (the last one in any case), each entry with "
        "the `turn_id` and `sequence` of its turn.",
    ),
]

OwnerId = Annotated[
    str | None,
    Query(description="Only if the conversation is this user's; 403 where it is another's."),
]

_STORE_AWAY = problem_responses(503)


async def _conversation(
    stores: Stores, session_id: str, conversation: Conversation | None, window_chars: int | None
) -> ConversationHistory | ConversationWindow:
    if conversation is None:
        return _empty(window_chars)
    if window_chars is None:
        turns = await stores.reader.history(session_id, conversation)
        return ConversationHistory(history=[entry for turn in turns for entry in _entries(turn)])
    turns = await stores.reader.window(session_id, conversation, window_chars)
    return ConversationWindow(
        history=[entry for turn in turns for entry in _placed(turn)],
        last_sequence=conversation.last_sequence,
        truncated=len(turns) < conversation.count,
    )


def _empty(window_chars: int | None) -> ConversationHistory | ConversationWindow:
    if window_chars is None:
        return ConversationHistory(history=[])
    return ConversationWindow(history=[], last_sequence=0, truncated=False)


def _entries(turn: StoredTurn) -> list[ConversationEntry]:
    return [
        ConversationEntry(role="user", content=turn.message, timestamp=turn.accepted_at),
        ConversationEntry(role="assistant", content=turn.reply, timestamp=turn.replied_at),
    ]


def _placed(turn: StoredTurn) -> list[PlacedEntry]:
    turn_id, sequence = turn.turn_id, turn.sequence
    return [
        PlacedEntry(role="user", content=turn.message, timestamp=turn.accepted_at, turn_id=turn_id, sequence=sequence),
        PlacedEntry(
            role="assistant", content=turn.reply, timestamp=turn.replied_at, turn_id=turn_id, sequence=sequence
        ),
    ]
