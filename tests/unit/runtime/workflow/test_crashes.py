"""The process dies at every write of a workflow, before it and after it; the next one finishes the workflow."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from dapr.ext.workflow import when_all

from everturn.runtime.workflow.store import events_of
from tests.unit.runtime.workflow.faulty_database import FaultyDatabase
from tests.unit.runtime.workflow.rig import PATIENCE_S, Rig, until


class Story:
    """A workflow with everything in it: activities in a row and side by side, a timer, a child, an event."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.begun: Counter[str] = Counter()

        @rig.activity
        async def note(_ctx: Any, what: str) -> str:
            self.begun[what] += 1
            return what

        @rig.workflow
        def child(ctx: Any, _: Any) -> Any:
            return (yield ctx.call_activity("note", input="child"))

        @rig.workflow
        def story(ctx: Any, _: Any) -> Any:
            first = yield ctx.call_activity("note", input="first")
            both = yield when_all([ctx.call_activity("note", input=side) for side in ("left", "right")])
            yield ctx.create_timer(timedelta(seconds=5))
            kid = yield ctx.call_child_workflow("child", instance_id="kid")
            event = yield ctx.wait_for_external_event("go")
            last = yield ctx.call_activity("note", input="last")
            return [first, *both, kid, event, last]

    async def drive(self) -> None:
        """Do what the outside does until the story ends or the process dies: pass time, raise the event once."""
        raised, seen = False, -1
        while True:
            await asyncio.sleep(0)
            if self.rig.engine.armed_timers:
                self.rig.clock.advance(5)
            if not raised and self.rig.engine.commits != seen:
                seen = self.rig.engine.commits
                if not await self._waits():
                    continue
                await self.rig.client.raise_workflow_event("one", "go", data="event")
                raised = True

    async def _waits(self) -> bool:
        state = await self.rig.client.get_workflow_state("one")
        if state is None or state.runtime_status.name != "RUNNING":
            return False
        history = await self.rig.history("one")
        return history[-1] == "TIMER_CREATED" and "CHILD_WORKFLOW_INSTANCE_COMPLETED" in history


async def start_once(rig: Rig) -> None:
    """What a careful client does: it does not start again what there is already."""
    if await rig.client.get_workflow_state("one") is None:
        await rig.client.schedule_new_workflow("story", instance_id="one")


async def live(rig: Rig, story: Story, database: FaultyDatabase) -> bool:
    """One life of the process, from its start to the end of the story or to its death; True if the story ended."""
    await rig.open(database=database)
    driving = asyncio.ensure_future(story.drive())
    starting = asyncio.ensure_future(start_once(rig))
    ended = asyncio.ensure_future(rig.ended("one"))
    async with asyncio.timeout(PATIENCE_S):
        while not (ended.done() or database.dead):  # noqa: ASYNC110 - whichever comes first
            await asyncio.sleep(0)
    for task in (driving, starting, ended):
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(driving, starting, ended, return_exceptions=True)
    if database.dead:
        await rig.engine.stop(limit_s=0)
    return not database.dead


@pytest.mark.parametrize("dies_after", [False, True])
async def test_a_crash_at_any_write_loses_nothing_and_repeats_no_finished_activity(rig: Rig, dies_after: bool) -> None:
    crashes = 0
    while True:
        story = Story(rig)
        crashed = await FaultyDatabase.create(rig.path)
        crashed.writes_left, crashed.dies_after = crashes, dies_after
        ended = await live(rig, story, crashed)
        finished_before = _finished(crashed)
        begun_before = Counter(story.begun)
        if not ended:
            await crashed.close()
            assert await live(rig, story, await FaultyDatabase.create(rig.path))
        state = await rig.ended("one")
        again = [name for name in finished_before if story.begun[name] > begun_before[name]]
        await rig.close()
        rig.path.unlink()
        rig.workflows.clear()
        rig.activities.clear()

        assert state.serialized_output == '["first", "left", "right", "child", "event", "last"]', crashes
        assert again == [], crashes
        if ended:
            break
        crashes += 1

    assert crashes >= 9


def _finished(database: FaultyDatabase) -> list[str]:
    """Inputs of the activities whose outcome is on disk."""
    blobs = database.read("SELECT key, group_concat(hex(events), '') FROM workflow_history GROUP BY key")
    finished: list[str] = []
    for _, joined in blobs:
        events = events_of(bytes.fromhex(joined))
        scheduled = {event.eventId: event.taskScheduled for event in events if event.HasField("taskScheduled")}
        finished.extend(
            scheduled[event.taskCompleted.taskScheduledId].input.value.strip('"')
            for event in events
            if event.HasField("taskCompleted")
        )
    return finished


async def test_a_start_that_was_not_acknowledged_may_be_repeated(rig: Rig) -> None:
    @rig.workflow
    def echo(_ctx: Any, value: Any) -> Any:
        return value

    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    database.writes_left = 0
    lost = asyncio.ensure_future(rig.client.schedule_new_workflow("echo", input=1, instance_id="one"))
    await until(lambda: database.dead)
    lost.cancel()
    await rig.engine.stop(limit_s=0)
    await database.close()

    await rig.open()
    await rig.start("echo", 2, "one")

    assert (await rig.ended("one")).serialized_output == "2"


async def test_many_unfinished_workflows_all_go_on_after_a_restart(rig: Rig) -> None:
    gate = asyncio.Event()
    running: set[int] = set()

    @rig.activity
    async def work(_ctx: Any, number: int) -> int:
        running.add(number)
        await gate.wait()
        return number

    @rig.workflow
    def one(ctx: Any, number: int) -> Any:
        return (yield ctx.call_activity("work", input=number))

    await rig.open()
    ids = await asyncio.gather(*(rig.start("one", number) for number in range(1200)))
    await rig.close()
    running.clear()

    await rig.open()
    resumed = rig.engine.resumed
    await until(lambda: len(running) == 1200)
    gate.set()
    outputs = [(await rig.ended(instance_id)).serialized_output for instance_id in ids]

    assert resumed == 1200
    assert outputs == [str(number) for number in range(1200)]
