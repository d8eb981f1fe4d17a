"""The summary of a user: a Dapr workflow, once a session is quiet or has many new turns, and its step.

An instance is named by its session and by how many turns were in the summary when its turn was stored. That number is
in the same key as the turn, so: turns that come meanwhile find their instance running, a turn that comes after the
instance's last look finds another number, and none is ever without an instance that will look for it.

Each turn counts once. The summary and the number of turns in it are one write of the user's key; the session's index
gets the number after that, and the note in the user's key is dropped last, so that a crash at any point is repaired by
doing it again.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, TaskFailedError, WorkflowActivityContext, WorkflowRuntime, when_any
from pydantic import BaseModel, ConfigDict

from everturn.contracts.memory import MAX_FIELD_CHARS
from everturn.dapr.client import retry_conflicts
from everturn.dapr.workflows import Workflows
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.memory.domain import Conversation, Memory, StoredTurn
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.store import Conversations, Stores, memory_of
from everturn.models.summarizer import SummaryTurn

SUMMARY_WORKFLOW = "summary_workflow"
REFRESH_SUMMARY = "refresh_summary"

ENOUGH = "enough"
"""The event for a workflow whose session has so many new turns that it need not be quiet first."""

# Sessions.
_MOST_REMEMBERED = 4096
_FIRST_RETRY_S = 5.0
_MAX_DELAY_S = 300.0
# Turns of one model call: what came in a burst, or while the model was away, piece by piece.
_BATCH_TURNS = 20
# Faults of the text itself (models/faults.py): no retry helps, another turn may do.
_REFUSALS = frozenset({"content_filter", "refused"})
# What an endpoint says of too long a request, among other things: fewer turns may be taken.
_TOO_LONG = frozenset({"http_400", "http_413", "http_422"})

log = logging.getLogger(__name__)

Summarise = Callable[[str, str, Sequence[SummaryTurn]], Awaitable[str]]
"""From the user's name, the previous summary and new turns to the new summary."""


class SummaryInput(BaseModel):
    """Whose summary, from which session, how many seconds from now.

    `seen` is how many turns the session had then: with more, it was not quiet. None does not ask for quiet. `attempt`
    counts failed ones, `retry_after_s` is what the model asked for.
    """

    model_config = ConfigDict(frozen=True)

    user_id: str
    session_id: str
    settle_s: float = _FIRST_RETRY_S
    seen: int | None = None
    attempt: int = 0
    retry_after_s: float | None = None

    @property
    def delay(self) -> timedelta:
        """`settle_s`, doubled with each failure up to five minutes; longer if the model asked for it."""
        backoff_s = min(_MAX_DELAY_S, self.settle_s * 2.0 ** min(self.attempt, 16))
        return timedelta(seconds=max(backoff_s, self.retry_after_s or 0))


def summary_workflow(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
    """Wait for quiet or for enough turns, refresh; if that fails or it was not quiet, again as a new run."""
    yield when_any([ctx.create_timer(summary.delay), ctx.wait_for_external_event(ENOUGH)])
    try:
        result = yield ctx.call_activity(REFRESH_SUMMARY, input=summary.model_dump())
    except TaskFailedError:
        result = {"retry": True, "retry_after_s": None}
    if result.get("seen") is not None:
        ctx.continue_as_new(summary.model_copy(update={"seen": result["seen"]}).model_dump())
    elif result["retry"]:
        again = {
            "settle_s": _FIRST_RETRY_S,
            "seen": None,
            "attempt": summary.attempt + 1,
            "retry_after_s": result["retry_after_s"],
        }
        ctx.continue_as_new(summary.model_copy(update=again).model_dump())


def summary_workflow_v1(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
    """Version 1, which waited a moment after a turn. Frozen: histories of it may be in flight."""
    yield ctx.create_timer(summary.delay)
    try:
        result = yield ctx.call_activity(REFRESH_SUMMARY, input=summary.model_dump())
    except TaskFailedError:
        result = {"retry": True, "retry_after_s": None}
    if result["retry"]:
        again = {"attempt": summary.attempt + 1, "retry_after_s": result["retry_after_s"]}
        ctx.continue_as_new(summary.model_copy(update=again).model_dump())


class Summaries:
    """Starts the summary of a session that is quiet for `quiet_s` seconds or has `enough` new turns.

    An instance is asked for by a turn, then by none for `quiet_s` seconds by `now`: an operator may have ended it, or
    its store may have lost it. Raises TransientError if the workflow engine cannot be reached.
    """

    def __init__(
        self,
        workflows: Workflows,
        conversations: Conversations,
        *,
        quiet_s: float,
        enough: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workflows = workflows
        self._conversations = conversations
        self._quiet_s = quiet_s
        self._enough = enough
        self._now = now
        # The instance that was asked for last, and when, by session.
        self._asked: dict[str, tuple[str, float]] = {}

    async def ensure(self, session_id: str, conversation: Conversation) -> None:
        """Make sure that all turns of a conversation get into the summary: durable when this returns. Idempotent."""
        if conversation.is_summarised:
            return
        given = SummaryInput(
            user_id=conversation.owner,
            session_id=session_id,
            settle_s=0 if self._has_enough(conversation) else self._quiet_s,
            seen=conversation.count,
        )
        session_hash = hashlib.sha256(session_id.encode()).hexdigest()[:32]
        instance_id = f"summary-{session_hash}-{conversation.summarised}"
        is_new = False
        if not self._was_asked_for(session_id, instance_id):
            is_new = await self._workflows.start(SUMMARY_WORKFLOW, instance_id, given.model_dump())
            self._remember(session_id, instance_id)
        # An event that is lost costs the rest of the quiet time: the workflow counts for itself then.
        if not is_new and conversation.new_turns == self._enough:
            await self._workflows.raise_event(instance_id, ENOUGH)

    def _was_asked_for(self, session_id: str, instance_id: str) -> bool:
        asked_for, when = self._asked.get(session_id, ("", 0.0))
        return asked_for == instance_id and self._now() < when + self._quiet_s

    def _remember(self, session_id: str, instance_id: str) -> None:
        self._asked.pop(session_id, None)
        self._asked[session_id] = (instance_id, self._now())
        if len(self._asked) > _MOST_REMEMBERED:
            del self._asked[next(iter(self._asked))]

    async def ensure_next(self, session_id: str) -> None:
        """As `ensure`, for the conversation as it is now."""
        if conversation := await self._conversations.find(session_id):
            await self.ensure(session_id, conversation)

    async def turns_to_wait_behind(self, summary: SummaryInput) -> int | None:
        """How many turns the session has if it was not quiet and has not enough new ones yet; None if it is time."""
        conversation = await self._conversations.find(summary.session_id) if summary.seen is not None else None
        if conversation is None or conversation.count == summary.seen or self._has_enough(conversation):
            return None
        return conversation.count

    def _has_enough(self, conversation: Conversation) -> bool:
        return conversation.new_turns >= self._enough


@dataclass(frozen=True, slots=True)
class Refreshed:
    """`retry` if the summary could not be made now; `more` if turns wait that are not in it yet; `seen` if the session
    was not quiet: how many turns it has."""

    more: bool = False
    retry: bool = False
    retry_after_s: float | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """A summary made from `memory` and the turns of the session from number `start` up to `stop`, without it."""

    memory: Memory
    start: int
    stop: int
    summary: str


class Refresher:
    """Makes summaries with `summarise`, each in at most `timeout_s` seconds."""

    def __init__(self, stores: Stores, summarise: Summarise, metrics: MemoryMetrics, timeout_s: float) -> None:
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

        async def bring_in_once() -> int:
            nonlocal made
            # The user first: what the index said before a note was dropped, it still says after that.
            user = await self._stores.users.read(user_id)
            conversation = await self._stores.conversations.find(session_id)
            if conversation is None:
                return 0
            done = max(conversation.summarised, user.value.applied.get(session_id, 0) if user else 0)
            if done >= conversation.count:
                return done
            memory = memory_of(user_id, user)
            if made is None or (made.memory, made.start) != (memory, done):
                batch = await self._stores.conversations.arrived(session_id, conversation, done, done + _BATCH_TURNS)
                made = await self._make(memory, session_id, batch)
            await self._stores.users.apply_summary(user_id, user, session_id, made.summary, made.stop)
            return made.stop

        return await retry_conflicts(bring_in_once, f"user {user_id!r}")

    async def _make(self, memory: Memory, session_id: str, batch: Sequence[StoredTurn]) -> _Made:
        """The summary with `batch` in it, or with its first turn alone if the model does not take the whole."""
        start = batch[0].arrival
        try:
            return _Made(memory, start, start + len(batch), await self._summary(memory, batch))
        except TerminalError as error:
            if error.kind not in _REFUSALS and (error.kind not in _TOO_LONG or len(batch) == 1):
                raise
        if len(batch) > 1:
            return await self._make(memory, session_id, batch[:1])
        # One turn that no model will summarise must not keep all later ones out.
        log.warning("turn_left_out_of_summary", extra={"session_id": session_id, "turn_id": batch[0].turn_id})
        return _Made(memory, start, start + 1, memory.user_summary)

    async def _summary(self, memory: Memory, batch: Sequence[StoredTurn]) -> str:
        turns = [SummaryTurn("\n".join(turn.texts), turn.reply) for turn in batch]
        try:
            async with asyncio.timeout(self._timeout_s):
                summary = await self._summarise(memory.name, memory.user_summary, turns)
        except TimeoutError:
            raise TransientError(f"no summary within {self._timeout_s:g} s", kind="timeout") from None
        return summary[:MAX_FIELD_CHARS]


def register_summary(worker: WorkflowRuntime, refresher: Refresher, summaries: Summaries) -> None:
    """Register the workflow, in its versions, and its activity on `worker`."""

    # The SDK marks the functions that it registers, so each worker gets its own.
    def v1(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
        return summary_workflow_v1(ctx, summary)

    def v2(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
        return summary_workflow(ctx, summary)

    async def refresh_summary(_: WorkflowActivityContext, given: dict[str, Any]) -> dict[str, Any]:
        summary = SummaryInput.model_validate(given)
        if (seen := await summaries.turns_to_wait_behind(summary)) is not None:
            return asdict(Refreshed(seen=seen))
        result = await refresher.refresh(summary.user_id, summary.session_id)
        if result.more:
            await summaries.ensure_next(summary.session_id)
        return asdict(result)

    worker.register_versioned_workflow(v1, name=SUMMARY_WORKFLOW, version_name="v1", is_latest=False)
    worker.register_versioned_workflow(v2, name=SUMMARY_WORKFLOW, version_name="v2", is_latest=True)
    worker.register_activity(refresh_summary, name=REFRESH_SUMMARY)
