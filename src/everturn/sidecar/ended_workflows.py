"""Finding workflow instances that are over, for those who purge them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial

from dapr.ext.workflow import WorkflowState, WorkflowStatus

from everturn.sidecar.workflow_errors import read_whole, sorted_workflow_errors
from everturn.sidecar.workflows import WorkflowClient

_ENDED = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.TERMINATED})


async def ended_before(workflows: WorkflowClient, moment: datetime) -> AsyncIterator[str]:
    """The ids of this app's instances that ended before `moment`. They may be purged while it goes on.

    Raises TransientError where the workflow engine cannot be reached.
    """
    with sorted_workflow_errors():
        instance_ids = [instance_id async for instance_id in workflows.iter_workflow_instance_ids()]
    for instance_id in instance_ids:
        with sorted_workflow_errors():
            state = await read_whole(partial(workflows.get_workflow_state, instance_id, fetch_payloads=False))
        if state is not None and _ended_before(state, moment):
            yield instance_id


def _ended_before(state: WorkflowState, moment: datetime) -> bool:
    # The SDK gives naive times in UTC.
    return state.runtime_status in _ENDED and state.last_updated_at.replace(tzinfo=UTC) < moment
