"""Turns that their workflow has left without an end: terminated by an operator, failed by a bug.

Nothing else would end them, and they would hold their session for ever. Whoever looks ends them: the next message of
the session, a client that waits, `GET /turns/{id}`, the purge. Several may do so at once: the first write counts.
"""

import logging
from functools import partial

from dapr.ext.workflow.workflow_state import WorkflowState, WorkflowStatus

from everturn.chat.delivery import schedule_delivery
from everturn.chat.ending import end_turn_in_session
from everturn.chat.records import TurnRecord
from everturn.chat.services import TurnServices
from everturn.chat.turn import FETCH_CONTEXT, HANDLE_ERROR, SAVE_CONVERSATION
from everturn.chat.turn_view import steps_of
from everturn.contracts.chat import Failure, Step, StepStatus, TurnStatus

log = logging.getLogger(__name__)

_FAILURE = Failure(kind="workflow_failed", message="the workflow of the turn failed")


async def end_abandoned(services: TurnServices, record: TurnRecord, workflow: WorkflowState | None) -> None:
    """End the turn of `record`, whose `workflow` has ended; None: whose session may not have heard of its outcome.

    A terminated workflow is a cancelled turn, a failed one a failed turn (kind `workflow_failed`). A completed one has
    ended its turn by its last step; should the record not say so, that is a failure too. Where the reply was being
    saved, the turn can only complete, as ever. Nothing changes where the turn runs again meanwhile.
    """
    now = (await services.records.get(record.turn_id)).record
    end = partial(end_turn_in_session, services, record.turn_id, instance_id=record.instance_id)
    if now.outcome is not None:
        await end(TurnStatus(now.outcome.status))
    elif workflow is not None:
        steps = steps_of(await services.instances.history(record.instance_id))
        ids = {"turn_id": record.turn_id, "instance_id": record.instance_id}
        log.error("turn_abandoned", extra={**ids, "workflow": workflow.runtime_status.name})
        if now.reply is not None and (saving := _saving(steps)):
            if saving.status is not StepStatus.COMPLETED:
                await schedule_delivery(services.instances, record.turn_id)
            await end(TurnStatus.COMPLETED)
        elif workflow.runtime_status is WorkflowStatus.TERMINATED:
            await end(TurnStatus.CANCELLED)
        else:
            await end(TurnStatus.FAILED, step=_step_of_failure(steps), error=_FAILURE)


def _saving(steps: list[Step]) -> Step | None:
    return next((step for step in steps if step.name == SAVE_CONVERSATION), None)


def _step_of_failure(steps: list[Step]) -> str:
    """The step that a rerun begins with: all find what is done already."""
    return next((step.name for step in reversed(steps) if step.name != HANDLE_ERROR), FETCH_CONTEXT)
