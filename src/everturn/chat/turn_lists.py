"""Lists of what a user has, from the user's index. What an entry stands for is looked up when it is shown."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from everturn.chat.queue import SessionQueue
from everturn.chat.turns import Turns
from everturn.chat.user_index import IndexedTurn, UserIndexes
from everturn.contracts.chat import SessionList, SessionSummary, Turn, TurnList, TurnStatus

# Entries that one request looks at; a list that is short because of it has a `next`.
_LOOKS = 500
# Turns that are looked up at once.
_MOST_LOOKUPS = 20

_Numbered = tuple[int, IndexedTurn]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A part of what a user has, newest first: at most `limit`, after `cursor`, the `next` of the list before."""

    user_id: str
    limit: int
    cursor: int | None


@dataclass(eq=False, slots=True)
class Lists:
    """Lists of what users have. Raises TransientError."""

    _indexes: UserIndexes
    _turns: Turns
    _queue: SessionQueue

    async def turns(
        self, query: ListQuery, status: TurnStatus | None, session_id: str | None, *, with_content: bool
    ) -> TurnList:
        """Turns of that status and session; None is any."""
        shown: list[Turn] = []
        async with aclosing(self._batches(query, lambda entry: session_id in (None, entry.session_id))) as batches:
            async for entries, after in batches:
                cursor = after
                looking = (self._turns.look(entry.turn_id, with_content=with_content) for _, entry in entries)
                found = await asyncio.gather(*looking)
                for (number, _), turn in zip(entries, found, strict=True):
                    if turn is not None and turn.user_id == query.user_id and status in (None, turn.status):
                        shown.append(turn)
                        if len(shown) == query.limit:
                            return TurnList(turns=shown, next=_next(number))
        return TurnList(turns=shown, next=_next(cursor))

    async def sessions(self, query: ListQuery) -> SessionList:
        """Sessions, each at the place of its last turn."""
        shown: list[SessionSummary] = []
        async with aclosing(self._batches(query, lambda _: True)) as batches:
            async for entries, after in batches:
                cursor = after
                found = await self._queue.read_many(sorted({entry.session_id for _, entry in entries}))
                for number, entry in entries:
                    session = found.get(entry.session_id)
                    if session is None or (session.last_turn, session.user_id) != (entry.turn_id, query.user_id):
                        continue
                    shown.append(
                        SessionSummary(
                            session_id=entry.session_id,
                            turns=session.turns,
                            last_at=session.last_at,
                            title=session.title,
                        )
                    )
                    if len(shown) == query.limit:
                        return SessionList(sessions=shown, next=_next(number))
        return SessionList(sessions=shown, next=_next(cursor))

    async def _batches(
        self, query: ListQuery, is_wanted: Callable[[IndexedTurn], bool]
    ) -> AsyncGenerator[tuple[list[_Numbered], int], None]:
        """The wanted entries, some at a time, and the cursor after them; 0 after the last one there is."""
        batch: list[_Numbered] = []
        looks = 0
        async with aclosing(self._indexes.newest(query.user_id, query.cursor)) as entries:
            async for number, entry in entries:
                looks += 1
                if is_wanted(entry):
                    batch.append((number, entry))
                if len(batch) == _MOST_LOOKUPS or looks == _LOOKS:
                    yield batch, number
                    batch = []
                if looks == _LOOKS:
                    return
        yield batch, 0


def _next(cursor: int) -> str | None:
    return str(cursor) if cursor else None
