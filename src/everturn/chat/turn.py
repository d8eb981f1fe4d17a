"""The story of a turn: a Dapr workflow. It decides; activities act. Registered names never change, since stored
histories hold them; a change of the order of steps is a new version (docs/how-to/add-a-step.md).
"""

from collections.abc import Generator
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime

from everturn.chat.story import StepFailed, Story, TurnCancelled, TurnInput
from everturn.contracts.chat import TurnStatus

CHAT_WORKFLOW = "chat_workflow"

FETCH_CONTEXT = "fetch_context"
GENERATE_RESPONSE = "generate_response"
SAVE_CONVERSATION = "save_conversation"
HANDLE_ERROR = "handle_error"
# Internal: not shown in `Turn.steps`.
DEFER_EVENT = "defer_event"
END_TURN = "end_turn"


def chat_workflow(ctx: DaprWorkflowContext, turn: TurnInput) -> Generator[Any, Any, dict[str, Any]]:
    """Fetch, generate, save; whatever happens, the turn ends and lets the next one of its session go."""
    story = Story(ctx, turn)
    status, failure = TurnStatus.COMPLETED, None
    try:
        yield from fetched(story)
        yield from story.step(GENERATE_RESPONSE)
        yield from saved(story)
    except TurnCancelled:
        status = TurnStatus.CANCELLED
    except StepFailed as error:
        status = TurnStatus.FAILED
        failure = {"step": error.step, "attempts": error.attempts, **error.fault.as_failure().model_dump()}
        yield from handled(story, failure)
    yield from story.surely(END_TURN, status=status, failure=failure)
    return {"status": status}


def fetched(story: Story) -> Generator[Any, Any, None]:
    """Context is wanted, not needed: the reply says in `degraded` what it went without."""
    try:
        yield from story.step(FETCH_CONTEXT)
    except StepFailed:
        return


def saved(story: Story) -> Generator[Any, Any, None]:
    """The reply is paid for and will be given: an event that cannot be sent now is sent later. Too late to cancel."""
    try:
        yield from story.step(SAVE_CONVERSATION, cancellable=False)
    except StepFailed:
        yield from story.surely(DEFER_EVENT)


def handled(story: Story, failure: dict[str, Any]) -> Generator[Any, Any, None]:
    """A failure is told; that nobody can be told now does not keep the turn from ending."""
    try:
        yield from story.step(HANDLE_ERROR, cancellable=False, failure=failure)
    except StepFailed:
        return


def register_turn(worker: WorkflowRuntime) -> None:
    """Register the workflow on `worker`, as its version `v1`."""

    def v1(ctx: DaprWorkflowContext, turn: TurnInput) -> Generator[Any, Any, dict[str, Any]]:
        return chat_workflow(ctx, turn)

    # The SDK marks the function that it registers, so each worker gets one of its own.
    worker.register_versioned_workflow(v1, name=CHAT_WORKFLOW, version_name="v1", is_latest=True)
