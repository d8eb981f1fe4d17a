"""Events that could not be published while their turn ran: a workflow for each tries for as long as it takes."""

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from pydantic import BaseModel, ConfigDict

from everturn.chat.facts import TurnRun
from everturn.chat.workflow.chat_turn import SAVE_CONVERSATION
from everturn.chat.workflow.step_runner import Policies, Policy, StepFailed, StepRunner
from everturn.dapr.workflows import Workflows

DELIVER_EVENT_WORKFLOW = "deliver_event"


class DeferredEvent(BaseModel):
    """Whose event waits. `policy`: after its attempts the workflow continues as new, so that its history stays small.

    The release before gave the turn alone: then it is the turn's latest run.
    """

    model_config = ConfigDict(frozen=True)

    turn_id: str
    run: int | None = None
    sequence: int | None = None
    policy: Policy = Policy(attempts=20, first_delay_s=1, max_delay_s=15)


def deliver_event(ctx: DaprWorkflowContext, event: DeferredEvent) -> Generator[Any, Any, None]:
    """Publish the event of a turn, however long the broker is away."""
    call = {"turn_id": event.turn_id, "run": event.run, "sequence": event.sequence}
    runner = StepRunner(ctx, Policies(steps={SAVE_CONVERSATION: event.policy}), call)
    try:
        yield from runner.step(SAVE_CONVERSATION, cancellable=False, deferred=True)
    except StepFailed:
        yield ctx.create_timer(timedelta(seconds=event.policy.max_delay_s))
        ctx.continue_as_new(event.model_dump(mode="json"))


async def start_delivery(workflows: Workflows, policy: Policy, run: TurnRun, sequence: int) -> None:
    """Deliver the event of an ended run; nothing if that runs already."""
    event = DeferredEvent(turn_id=run.turn_id, run=run.number, sequence=sequence, policy=policy)
    await workflows.start(DELIVER_EVENT_WORKFLOW, f"{run.instance_id}.event", event.model_dump(mode="json"))


def register_deliver_event(worker: WorkflowRuntime) -> None:
    """Register the workflow on `worker`, as its version `v1`."""

    def v1(ctx: DaprWorkflowContext, event: DeferredEvent) -> Generator[Any, Any, None]:
        return deliver_event(ctx, event)

    worker.register_versioned_workflow(v1, name=DELIVER_EVENT_WORKFLOW, version_name="v1", is_latest=True)
