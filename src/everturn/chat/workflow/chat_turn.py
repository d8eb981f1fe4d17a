"""A turn as a Dapr workflow. It decides; activities act. Registered names never change, since stored
histories hold them.

Which steps a turn takes, and how patiently, is in its workflow's input: a turn that runs while a step is added takes
those that it began with. A change of the order itself is a new version, beside the old one (docs/how-to/add-a-step.md).
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from pydantic import BaseModel, ConfigDict

from everturn.chat.facts import TurnRun, instance_id
from everturn.chat.workflow.chat_turn_v1 import TurnInputV1, chat_turn_v1
from everturn.chat.workflow.step_runner import (
    YOUR_TURN_EVENT,
    NotItsTurn,
    Policies,
    StepFailed,
    StepRunner,
    Steps,
    TurnCancelled,
)
from everturn.dapr.workflows import Workflows, has_ended

CHAT_WORKFLOW = "chat_workflow"

FETCH_CONTEXT = "fetch_context"
SAVE_CONVERSATION = "save_conversation"
HANDLE_ERROR = "handle_error"
# Internal: not shown in `Turn.steps`.
END_TURN = "end_turn"


class TurnInput(BaseModel):
    """What a turn's workflow is started with. `starts_first`: before the turn had its place in the session."""

    model_config = ConfigDict(frozen=True)

    turn_id: str
    session_id: str
    run: int
    steps: tuple[str, ...]
    policies: Policies
    starts_first: bool = False


def chat_turn(ctx: DaprWorkflowContext, turn: TurnInput) -> Generator[Any, Any, dict[str, Any]]:
    """The steps in their order; whatever happens, the turn ends and lets the next one of its session run."""
    call = {"turn_id": turn.turn_id, "session_id": turn.session_id, "run": turn.run}
    runner = StepRunner(ctx, turn.policies, call)
    try:
        for name in turn.steps:
            if name == FETCH_CONTEXT:
                if not (yield from fetched(runner, starts_first=turn.starts_first)):
                    return {"status": "gone"}
            elif name != SAVE_CONVERSATION:
                yield from runner.decided_step(name)
        verdict = "reply"
    except TurnCancelled:
        verdict = yield from runner.run_until_done(END_TURN, status="cancelled")
    except StepFailed as error:
        failure = {"step": error.step, "attempts": error.attempts, **error.fault.as_failure().model_dump()}
        verdict = yield from runner.run_until_done(HANDLE_ERROR, failure=failure)
    if verdict == "reply":
        # Also if a failure or a cancellation came second: the reply is paid for and will be given.
        verdict = yield from runner.run_until_done(SAVE_CONVERSATION)
    return {"verdict": verdict}


def fetched(runner: StepRunner, *, starts_first: bool) -> Steps:
    """Wait for the turn's turn and fetch its context; False if the turn is over, or refused, already.

    Context is wanted, not needed: the reply says in `degraded` what it went without.
    """
    for look in count():
        try:
            return (yield from runner.step(FETCH_CONTEXT, starts_first=starts_first and look == 0)) != "gone"
        except StepFailed:
            return True
        except NotItsTurn:
            yield from runner.wait_for_turn(look)
    return False


@dataclass(eq=False, slots=True)
class TurnWorkflows:
    """Starts the workflows of turns, with the steps and policies of this process."""

    _workflows: Workflows
    _steps: tuple[str, ...]
    _policies: Policies

    async def start(self, run: TurnRun) -> None:
        """Start the workflow of a run that has no place yet; nothing if it runs already."""
        await self._start(run.turn_id, run.number, run.accepted.session_id, starts_first=True)

    async def start_waiting(self, turn_id: str, number: int, session_id: str) -> None:
        """Start the workflow of a run whose turn it is now; one that runs already is sent `your_turn`.

        One that has ended stays so: Dapr would replace it, and what an operator terminated would run again. A
        look at the turn ends it (`AbandonedTurns`).
        """
        workflow = await self._workflows.state(instance_id(turn_id, number))
        if workflow is not None and has_ended(workflow):
            return
        if not await self._start(turn_id, number, session_id, starts_first=False):
            await self._workflows.raise_event(instance_id(turn_id, number), YOUR_TURN_EVENT)

    async def _start(self, turn_id: str, number: int, session_id: str, *, starts_first: bool) -> bool:
        turn = TurnInput(
            turn_id=turn_id,
            session_id=session_id,
            run=number,
            steps=self._steps,
            policies=self._policies,
            starts_first=starts_first,
        )
        return await self._workflows.start(CHAT_WORKFLOW, instance_id(turn_id, number), turn.model_dump(mode="json"))


def register_chat_turn(worker: WorkflowRuntime) -> None:
    """Register the workflow on `worker`: new turns are version `v2`, those of the release before stay on `v1`."""

    def v1(ctx: DaprWorkflowContext, turn: TurnInputV1) -> Generator[Any, Any, dict[str, Any]]:
        return chat_turn_v1(ctx, turn)

    def v2(ctx: DaprWorkflowContext, turn: TurnInput) -> Generator[Any, Any, dict[str, Any]]:
        return chat_turn(ctx, turn)

    # The SDK marks the functions that it registers, so each worker gets its own.
    worker.register_versioned_workflow(v1, name=CHAT_WORKFLOW, version_name="v1", is_latest=False)
    worker.register_versioned_workflow(v2, name=CHAT_WORKFLOW, version_name="v2", is_latest=True)
