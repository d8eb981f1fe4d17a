"""What clients do to instances beside sending events: start, purge, rerun."""

from collections.abc import Sequence

from everturn.errors import ConflictError, TerminalError
from everturn.runtime.engine.fork import Fork
from everturn.runtime.engine.inbox import Arrived
from everturn.runtime.engine.messages import StartInstance
from everturn.runtime.host import Host
from everturn.runtime.instances import Instance
from everturn.runtime.outbox import already_exists
from everturn.runtime.store.workflow_store import START_TIMER_ID, StepRows, TimerRow


class StillRunningError(TerminalError):
    """An instance that has not ended was to be purged without force."""

    kind = "still_running"


async def start_instance(host: Host, message: StartInstance) -> None:
    """Create an instance; it is on disk when this returns, and has taken its first turn where its app has a worker.

    An ended instance of the same id is replaced. Raises ConflictError where one is active, TransientError where the
    disk refuses.
    """
    existing = host.instances.get(message.app_id, message.instance_id)
    while existing is not None and (not existing.on_disk or (existing.ended and existing.busy)):
        await host.quiet(existing)
        existing = host.instances.get(message.app_id, message.instance_id)
    if existing is not None and not existing.ended:
        raise ConflictError(already_exists(message.instance_id))
    now = host.clock.now()
    instance = host.outbox.new_instance(message, now, existing)
    host.instances.add(instance)
    if message.start_at is None or message.start_at <= now:
        await host.submit(instance, message.event)
    else:
        await _start_later(host, instance, message, message.start_at)


async def _start_later(host: Host, instance: Instance, message: StartInstance, start_at: float) -> None:
    timer = TimerRow(instance.key, START_TIMER_ID, start_at, "")
    rows = host.outbox.keep(instance, [Arrived(message.event)]).rows
    rows.timers.append(timer)
    try:
        await host.store.commit(rows)
    finally:
        # Found again on disk, with its inbox, when it is time or when an event starts it early.
        host.instances.forget(instance)
    host.timers.arm(instance.id, timer)


async def purge_instances(host: Host, instance: Instance, *, recursive: bool, force: bool) -> int:
    """Remove an instance, and with `recursive` its children; how many were removed.

    All or nothing. Raises StillRunningError where one has not ended, unless `force`, and TransientError where the disk
    refuses.
    """
    family = [instance]
    for member in family:
        await host.quiet(member)
        if not member.ended and not force:
            raise StillRunningError("orchestration has not yet completed")
        if recursive:
            family.extend(child for child in _children(host, member) if child not in family)
    await remove_instances(host, family)
    return len(family)


async def remove_instances(host: Host, family: Sequence[Instance]) -> None:
    """Remove instances of which no step is under way, in one transaction."""
    for member in family:
        host.instances.forget(member)
        for timer_id in (START_TIMER_ID, *member.state.timers):
            host.timers.disarm(member.key, timer_id)
    await host.store.commit(StepRows(removed=[(member.key,) for member in family]))


def _children(host: Host, parent: Instance) -> list[Instance]:
    children = []
    for event in parent.history:
        if event.HasField("childWorkflowInstanceCreated"):
            app_id = event.router.targetAppID or parent.row.app_id
            child = host.instances.get(app_id, event.childWorkflowInstanceCreated.instanceId)
            if child is not None:
                children.append(child)
    return children


async def rerun_instance(host: Host, app_id: str, instance_id: str, fork: Fork) -> None:
    """Create an instance that begins with a forked history; it is on disk when this returns.

    Raises ConflictError where the id is in use, also by an ended instance, TransientError where the disk refuses.
    """
    if host.instances.get(app_id, instance_id) is not None:
        raise ConflictError(f"workflow '{instance_id}' has already been created")
    message = StartInstance(app_id, instance_id, fork.start)
    instance = host.outbox.new_instance(message, host.clock.now(), None)
    instance.busy = True
    host.instances.add(instance)
    try:
        await host.settle(instance, fork.outcome, ())
    except BaseException:
        host.instances.forget(instance)
        raise
    finally:
        host.release(instance)
    host.wake(instance)
