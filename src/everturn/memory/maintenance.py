"""Purging summary workflows that are over: nothing asks for them again."""

from datetime import datetime, timedelta

from everturn.settings import Settings
from everturn.sidecar.ended_workflows import ended_before
from everturn.sidecar.workflow_errors import sorted_workflow_errors
from everturn.sidecar.workflows import WorkflowClient

PURGE_EVERY_S = 600.0


async def purge_ended(workflows: WorkflowClient, settings: Settings, now: datetime) -> int:
    """Purge the instances that ended longer ago than the settings keep them; how many they were."""
    purged = 0
    async for instance_id in ended_before(workflows, now - timedelta(hours=settings.keep_workflows_hours)):
        with sorted_workflow_errors():
            await workflows.purge_workflow(instance_id)
        purged += 1
    return purged
