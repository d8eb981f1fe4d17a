"""Refreshing a user's summary from the previous one and the turns of a session that are not in it yet.

Each turn counts once. The summary and the number of turns in it are one write of the user's key; the session's index
is told after that, and the note in the user's key is dropped last, so a crash at any point is made good by doing it
again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from everturn.contracts.memory import MAX_FIELD_CHARS, UserMemory
from everturn.errors import ConflictError, EverturnError, TerminalError, TransientError
from everturn.memory.domain import Conversation, StoredTurn
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.stores import Stores
from everturn.models.summary import SummaryTurn

# Turns of one model call: what came in a burst, or while the model was away, piece by piece.
_BATCH_TURNS = 20
# Each lost race means that another session of the user got on.
_MAX_RACES = 20
# Faults of the text itself (models/faults.py): no retry helps, another turn may do.
_REFUSALS = frozenset({"content_filter", "refused"})

log = logging.getLogger(__name__)

Summarise = Callable[[str, str, Sequence[SummaryTurn]], Awaitable[str]]
"""From the user's name, the previous summary and new turns to the new summary."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """`retry` where the summary could not be made now; `more` where turns wait that are not in it yet."""

    more: bool = False
    retry: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """A summary made from `memory` and the turns of the session from number `start` up to `stop`, without it."""

    memory: UserMemory
    start: int
    stop: int
    summary: str


class Refresher:
    """Makes summaries with `summarise`, each in at most `timeout_s` seconds."""

    def __init__(
        self,
        stores: Stores,
        summarise: Summarise,
        metrics: MemoryMetrics,
        timeout_s: float,
    ) -> None:
        self._stores = stores
        self._summarise = summarise
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def refresh(self, user_id: str, session_id: str) -> Refreshed:
        """Bring the next turns of a session into its user's summary. Idempotent; raises nothing."""
        begun = time.perf_counter()
        try:
            result = await self._refresh(user_id, session_id)
        except Exception as error:  # noqa: BLE001 - the edge of the loop that tries until it is done
            # An unexpected error's text may hold what a user wrote.
            reason = error.message if isinstance(error, EverturnError) else type(error).__name__
            log.warning("summary_not_refreshed", extra={"session_id": session_id, "error": reason})
            retry_after_s = error.retry_after_s if isinstance(error, TransientError) else None
            result = Refreshed(retry=True, retry_after_s=retry_after_s)
        self._metrics.summary_tried("failed" if result.retry else "refreshed", time.perf_counter() - begun)
        return result

    async def _refresh(self, user_id: str, session_id: str) -> Refreshed:
        done = await self._bring_in_next(user_id, session_id)
        conversation = await self._stores.conversations.acknowledge(session_id, done)
        await self._stores.users.forget_applied(user_id, session_id, done)
        log.info("summary_refreshed", extra={"session_id": session_id, "turns": done})
        return Refreshed(more=conversation is not None and not conversation.is_summarised)

    async def _bring_in_next(self, user_id: str, session_id: str) -> int:
        """Write a summary with the next turns in it; how many turns of the session are in it then."""
        made: _Made | None = None
        for _ in range(_MAX_RACES):
            # The user first: what the index said before a note was dropped, it still says after that.
            user = await self._stores.users.read(user_id)
            conversation = await self._stores.conversations.find(session_id)
            if conversation is None:
                return 0
            done = max(conversation.summarised, user.record.applied.get(session_id, 0))
            if done >= conversation.count:
                return done
            if made is None or (made.memory, made.start) != (user.memory, done):
                made = await self._make(user.memory, session_id, await self._batch(session_id, conversation, done))
            try:
                await self._stores.users.apply_summary(user, session_id, made.summary, made.stop)
            except ConflictError:
                continue
            return made.stop
        raise ConflictError(f"user {user_id!r} has too many writers")

    async def _batch(self, session_id: str, conversation: Conversation, done: int) -> list[StoredTurn]:
        return await self._stores.reader.arrived(session_id, conversation, done, done + _BATCH_TURNS)

    async def _make(self, memory: UserMemory, session_id: str, batch: Sequence[StoredTurn]) -> _Made:
        """The summary with `batch` in it, or with its first turn alone where the model refuses the whole."""
        start = batch[0].arrival
        try:
            return _Made(memory, start, start + len(batch), await self._summary(memory, batch))
        except TerminalError as error:
            if error.kind not in _REFUSALS:
                raise
        if len(batch) > 1:
            return await self._make(memory, session_id, batch[:1])
        # One turn that no model will summarise must not keep all later ones out.
        log.warning("turn_left_out_of_summary", extra={"session_id": session_id, "turn_id": batch[0].turn_id})
        return _Made(memory, start, start + 1, memory.user_summary)

    async def _summary(self, memory: UserMemory, batch: Sequence[StoredTurn]) -> str:
        turns = [SummaryTurn(turn.message, turn.reply) for turn in batch]
        try:
            async with asyncio.timeout(self._timeout_s):
                summary = await self._summarise(memory.name, memory.user_summary, turns)
        except TimeoutError:
            raise TransientError(f"no summary within {self._timeout_s:g} s", kind="timeout") from None
        return summary[:MAX_FIELD_CHARS]
