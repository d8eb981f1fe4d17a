"""The summary as a Dapr workflow: a moment after a turn is stored, and for as long as it takes.

An instance is named by its session and by how many turns were in the summary when its turn was stored. That number is
in the same key as the turn, so: turns that come meanwhile find their instance running, a turn that comes after the
instance's last look finds another number, and none is ever without an instance that will look for it.
"""

import hashlib
from collections.abc import Awaitable, Callable, Generator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import grpc
from dapr.ext.workflow import DaprWorkflowContext, TaskFailedError, WorkflowActivityContext, WorkflowRuntime
from pydantic import BaseModel, ConfigDict

from everturn.memory.conversations import Conversations
from everturn.memory.domain import Conversation
from everturn.memory.refresh import Refresher
from everturn.sidecar.workflow_errors import already_runs, sorted_workflow_errors
from everturn.sidecar.workflows import WorkflowClient

SUMMARY_WORKFLOW = "summary_workflow"
REFRESH_SUMMARY = "refresh_summary"

# Turns that come fast are summarised together: each summary is a workflow and a paid call. A session's first
# turns tell most of a user, and soon; later ones are gathered for longer. The contract allows 30 s from a turn on.
_FIRST_SETTLE_S = 5.0
_SETTLE_S = 15.0
_MAX_DELAY_S = 300.0


class SummaryInput(BaseModel):
    """Whose summary, from which session, how many seconds from now; `attempt` counts failed ones, `retry_after_s` is
    what the model asked for."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    session_id: str
    settle_s: float = _FIRST_SETTLE_S
    attempt: int = 0
    retry_after_s: float | None = None

    @property
    def delay(self) -> timedelta:
        """`settle_s`, doubled with each failure up to five minutes; longer where the model asked for it."""
        backoff_s = min(_MAX_DELAY_S, self.settle_s * 2.0 ** min(self.attempt, 16))
        return timedelta(seconds=max(backoff_s, self.retry_after_s or 0))


def summary_workflow(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
    """Wait a moment, refresh; where that fails, again and again, each time as a new run with a small history."""
    yield ctx.create_timer(summary.delay)
    try:
        result = yield ctx.call_activity(REFRESH_SUMMARY, input=summary.model_dump())
    except TaskFailedError:
        result = {"retry": True, "retry_after_s": None}
    if result["retry"]:
        again = {"attempt": summary.attempt + 1, "retry_after_s": result["retry_after_s"]}
        ctx.continue_as_new(summary.model_copy(update=again).model_dump())


class Summaries:
    """Starts summaries. Raises TransientError where the workflow engine cannot be reached."""

    def __init__(self, workflows: Callable[[], WorkflowClient], conversations: Conversations) -> None:
        self._workflows = workflows
        self._conversations = conversations

    async def ensure(self, session_id: str, conversation: Conversation) -> None:
        """Make sure that all turns of a conversation get into the summary: durable when this returns. Idempotent."""
        await self._ensure(session_id, conversation, _SETTLE_S if conversation.summarised else _FIRST_SETTLE_S)

    async def ensure_next(self, session_id: str) -> None:
        """As `ensure`, for the conversation as it is now, whose turns have waited for a summary already."""
        if conversation := await self._conversations.find(session_id):
            await self._ensure(session_id, conversation, _FIRST_SETTLE_S)

    async def _ensure(self, session_id: str, conversation: Conversation, settle_s: float) -> None:
        if conversation.is_summarised:
            return
        given = SummaryInput(user_id=conversation.owner, session_id=session_id, settle_s=settle_s)
        session_hash = hashlib.sha256(session_id.encode()).hexdigest()[:32]
        await _start(self._workflows(), f"summary-{session_hash}-{conversation.summarised}", given)


def register_summary(worker: WorkflowRuntime, refresher: Refresher, summaries: Summaries) -> None:
    """Register the workflow, as its version `v1`, and its activity on `worker`."""

    def v1(ctx: DaprWorkflowContext, summary: SummaryInput) -> Generator[Any, Any, None]:
        return summary_workflow(ctx, summary)

    # The SDK marks the functions that it registers, so each worker gets its own.
    worker.register_versioned_workflow(v1, name=SUMMARY_WORKFLOW, version_name="v1", is_latest=True)
    worker.register_activity(_activity(refresher, summaries), name=REFRESH_SUMMARY)


def _activity(
    refresher: Refresher, summaries: Summaries
) -> Callable[[WorkflowActivityContext, dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def refresh_summary(_: WorkflowActivityContext, given: dict[str, Any]) -> dict[str, Any]:
        summary = SummaryInput.model_validate(given)
        result = await refresher.refresh(summary.user_id, summary.session_id)
        if result.more:
            await summaries.ensure_next(summary.session_id)
        return asdict(result)

    return refresh_summary


async def _start(workflows: WorkflowClient, instance_id: str, given: SummaryInput) -> None:
    with sorted_workflow_errors():
        try:
            await workflows.schedule_new_workflow(SUMMARY_WORKFLOW, input=given.model_dump(), instance_id=instance_id)
        except grpc.RpcError as error:
            if not already_runs(error):
                raise
