"""Events that could not be published while their turn ran: a workflow for each tries for as long as it takes."""

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from pydantic import BaseModel, ConfigDict

from everturn.chat.instances import TurnInstances
from everturn.chat.policies import Policies, Policy
from everturn.chat.story import StepFailed, Story, TurnInput
from everturn.chat.turn import SAVE_CONVERSATION

DELIVER_EVENT_WORKFLOW = "deliver_event"
# After this many attempts the workflow continues as new, so that its history stays small.
_ATTEMPTS_PER_RUN = 20
_POLICY = Policy(attempts=_ATTEMPTS_PER_RUN, first_delay_s=1, max_delay_s=15)


class DeferredEvent(BaseModel):
    """Whose event waits."""

    model_config = ConfigDict(frozen=True)

    turn_id: str


def deliver_event(ctx: DaprWorkflowContext, event: DeferredEvent) -> Generator[Any, Any, None]:
    """Publish the event of a turn, however long the broker is away."""
    policies = Policies(steps={SAVE_CONVERSATION: _POLICY})
    story = Story(ctx, TurnInput(turn_id=event.turn_id, policies=policies))
    try:
        yield from story.step(SAVE_CONVERSATION, cancellable=False, deferred=True)
    except StepFailed:
        yield ctx.create_timer(timedelta(seconds=_POLICY.max_delay_s))
        ctx.continue_as_new(event.model_dump())


async def schedule_delivery(instances: TurnInstances, turn_id: str) -> None:
    """Start delivering the event of a turn; nothing where that runs already."""
    await instances.start_workflow(DELIVER_EVENT_WORKFLOW, f"{turn_id}.event", DeferredEvent(turn_id=turn_id))


def register_delivery(worker: WorkflowRuntime) -> None:
    """Register the workflow on `worker`, as its version `v1`."""

    def v1(ctx: DaprWorkflowContext, event: DeferredEvent) -> Generator[Any, Any, None]:
        return deliver_event(ctx, event)

    worker.register_versioned_workflow(v1, name=DELIVER_EVENT_WORKFLOW, version_name="v1", is_latest=True)
