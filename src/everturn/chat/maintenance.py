"""Purging what is over: workflow instances of ended turns, once their steps are written into the turn's record.

Records, replies and claims end by their own time to live in the state store. Every replica may do this at any time.
"""

from datetime import datetime, timedelta

from everturn.chat.ending import record_ttl_s
from everturn.chat.records import save_record
from everturn.chat.services import TurnServices
from everturn.chat.turn_view import merged_steps, steps_of
from everturn.errors import ConflictError

PURGE_EVERY_S = 600.0


async def purge_ended(services: TurnServices, now: datetime) -> int:
    """Purge the instances that ended longer ago than the settings keep them; how many they were."""
    oldest = now - timedelta(hours=services.settings.keep_workflows_hours)
    purged = 0
    async for instance_id in services.instances.ended_before(oldest):
        if await _keep_steps(services, instance_id, now):
            await services.instances.purge(instance_id)
            purged += 1
    return purged


async def _keep_steps(services: TurnServices, instance_id: str, now: datetime) -> bool:
    """Write the steps of the instance into its turn's record; False where that has to be tried another time.

    Instances of earlier runs and of deferred events have no steps to keep, and a record may have ended before.
    """
    found = await services.records.find(instance_id)
    if found is None and "." in instance_id:
        found = await services.records.find(instance_id.rpartition(".")[0])
    if found is None or found.record.instance_id != instance_id:
        return True
    record = found.record
    if record.outcome is None:
        await services.hand_over.end_abandoned(record, await services.instances.state(instance_id))
        return False
    if record.purged:
        return True
    steps = steps_of(await services.instances.history(instance_id))
    kept = record.model_copy(update={"past_steps": merged_steps(record.past_steps, steps), "purged": True})
    try:
        await services.dapr.save_state(save_record(kept, etag=found.etag, ttl_s=record_ttl_s(services, record, now)))
    except ConflictError:
        return False
    return True
