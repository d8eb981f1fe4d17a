"""The routes for clients and for the chat service: memories and conversations."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from everturn.contracts.memory import ConversationEntry, ConversationHistory, UserMemory
from everturn.errors import TerminalError
from everturn.memory.domain import Conversation, StoredTurn
from everturn.memory.store import Conversations, Stores
from everturn.web.callers import Caller, CallerOf
from everturn.web.problems import problem_responses
from everturn.web.requests import PathId


class Initialized(BaseModel):
    status: Literal["success"] = "success"
    user_id: str
    metadata: UserMemory


class PlacedEntry(ConversationEntry):
    """An entry and the turn that it belongs to; `turn_id` is null if its event named none."""

    turn_id: str | None
    sequence: int


class ConversationWindow(BaseModel):
    """The end of a conversation. `last_sequence` is the highest of the whole; 0 if it is empty.

    `truncated`: there are turns before those that are given.
    """

    history: list[PlacedEntry]
    last_sequence: int
    truncated: bool


WindowChars = Annotated[
    int | None,
    Query(
        ge=0,
        le=2**53,
        description="Only the last turns that fit into this number of characters (the last one in any case), each "
        "entry with the `turn_id` and `sequence` of its turn.",
    ),
]
OwnerId = Annotated[str | None, Query(description="Only if the conversation is this user's; 403 if it is another's.")]


def add_memory_routes(router: APIRouter, stores: Stores) -> None:
    """The routes of the contract for clients."""

    @router.get(
        "/memories/{user_id}",
        tags=["memories"],
        summary="What is remembered of a user",
        responses=problem_responses(403, 503),
    )
    async def get_memory(user_id: PathId, caller: CallerOf) -> UserMemory:
        _check_memory_of(user_id, caller)
        return await stores.users.memory(user_id)

    @router.post(
        "/memories/{user_id}/initialize",
        tags=["memories"],
        summary="Replace it",
        responses=problem_responses(403, 413, 503),
    )
    async def initialize_memory(user_id: PathId, memory: UserMemory, caller: CallerOf) -> Initialized:
        _check_memory_of(user_id, caller)
        await stores.users.initialize(user_id, memory)
        return Initialized(user_id=user_id, metadata=memory)

    @router.get(
        "/conversations/{session_id}",
        tags=["conversations"],
        summary="A conversation or its end",
        response_model=ConversationHistory | ConversationWindow,
        responses=problem_responses(403, 503),
    )
    async def get_conversation(
        session_id: PathId, caller: CallerOf, window_chars: WindowChars = None, user_id: OwnerId = None
    ) -> Response:
        conversation = await stores.conversations.find(session_id)
        if conversation is None or not caller.may_see(conversation.owner):
            conversation = Conversation(owner="")  # as if there were none
        elif user_id not in (None, conversation.owner):
            raise TerminalError(f"session {session_id!r} belongs to another user", kind="forbidden")
        return await _conversation(stores.conversations, session_id, conversation, window_chars)


def _check_memory_of(user_id: str, caller: Caller) -> None:
    """Before anything is read: the answer does not say whether there is such a user."""
    if not caller.may_see(user_id):
        raise TerminalError("this memory belongs to another user", kind="forbidden")


async def _conversation(
    conversations: Conversations, session_id: str, conversation: Conversation, window_chars: int | None
) -> Response:
    body: ConversationHistory | ConversationWindow
    if window_chars is None:
        turns = await conversations.history(session_id, conversation)
        body = ConversationHistory(history=[ConversationEntry(**entry) for turn in turns for entry in _entries(turn)])
    else:
        turns = await conversations.window(session_id, conversation, window_chars)
        body = ConversationWindow(
            history=[
                PlacedEntry(**entry, turn_id=turn.turn_id, sequence=turn.sequence)
                for turn in turns
                for entry in _entries(turn)
            ],
            last_sequence=conversation.last_sequence,
            truncated=len(turns) < conversation.count,
        )
    # Encoded here, once: a long history would be copied several times on its way through response models.
    return Response(body.model_dump_json(), media_type="application/json")


def _entries(turn: StoredTurn) -> tuple[dict[str, Any], ...]:
    return (
        {"role": "user", "content": turn.text, "timestamp": turn.accepted_at},
        *({"role": "user", "content": one.text, "timestamp": one.accepted_at} for one in turn.merged),
        {"role": "assistant", "content": turn.reply, "timestamp": turn.replied_at},
    )
