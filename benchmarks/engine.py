"""The workflow engine alone: a workflow of three steps with 2 KB of context and a model that answers at once.

Everything is in one loop over a file with `synchronous=FULL`; an activity does nothing but give its result.
"""

import asyncio
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from benchmarks.floor import four_commits
from benchmarks.report import Figure, median
from everturn.cli.process import freeze_gc
from everturn.runtime.database.database import Database
from everturn.runtime.workflow.engine import WorkflowEngine

CONTEXT = "x" * 2_048
_WARM_UP = 200
_ALONE = 400
_AT_ONCE = 4_000


def worker(host: str | None = None, port: str | None = None) -> WorkflowRuntime:
    """A workflow that fetches, generates and saves, as a turn does. Made each time: the SDK marks what it registers."""

    def three_steps(ctx: DaprWorkflowContext, given: str) -> Generator[Any, Any, Any]:
        context = yield ctx.call_activity("fetch", input=given)
        reply = yield ctx.call_activity("generate", input=context)
        return (yield ctx.call_activity("save", input=reply))

    async def fetch(_: WorkflowActivityContext, _given: str) -> str:
        return CONTEXT

    async def generate(_: WorkflowActivityContext, _context: str) -> str:
        return "a reply"

    async def save(_: WorkflowActivityContext, reply: str) -> str:
        return reply

    made = WorkflowRuntime(host=host, port=port)
    made.register_workflow(three_steps, name="three_steps")
    for activity in (fetch, generate, save):
        made.register_activity(activity, name=activity.__name__)
    return made


def run() -> list[Figure]:
    """With the floor in the same run: what the disk does changes from minute to minute."""
    floor = four_commits()
    figures = _figures()
    alone = figures[0].value / floor[0].value
    return [*floor, *figures, Figure("engine", "one at a time, over four bare commits", alone, "times")]


def _figures() -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, tempfile.TemporaryDirectory() as folder:
        return runner.run(_measure(Path(folder) / "engine.db"))


@dataclass(frozen=True, slots=True)
class Burst:
    """Many turns at once: how many a second, and of each its CPU in milliseconds and its share of the commits."""

    per_second: float
    cpu_ms: float
    commits: float


async def _measure(path: Path) -> list[Figure]:
    database = await Database.open(path)
    engine = WorkflowEngine(database)
    await engine.start()
    engine.register("bench", worker())
    client = engine.client("bench")
    await at_once(client, database, 16, _WARM_UP)
    freeze_gc(resumed=0)  # as every command of Everturn does once it runs
    alone = [await one(client) for _ in range(_ALONE)]
    commits = database.commits
    await one(client)
    commits_alone = database.commits - commits
    bursts = {width: await at_once(client, database, width, _AT_ONCE) for width in (16, 64)}
    await engine.stop(5)
    await database.close()
    at_64 = bursts[64]
    return [
        Figure.at_most("engine", "one at a time, p50", median(alone), "ms", 2.5),
        Figure("engine", "one at a time, p99", sorted(alone)[int(len(alone) * 0.99)], "ms"),
        Figure("engine", "disk flushes a turn, one at a time", commits_alone, ""),
        Figure("engine", "16 at once", bursts[16].per_second, "turns/s"),
        Figure.at_least("engine", "64 at once", at_64.per_second, "turns/s", 1_600),
        Figure("engine", "CPU a turn, 64 at once", at_64.cpu_ms, "ms"),
        Figure("engine", "disk flushes a turn, 64 at once", at_64.commits, ""),
    ]


async def one(client: DaprWorkflowClient) -> float:
    """Milliseconds of a turn."""
    begun = time.perf_counter()
    instance_id = await client.schedule_new_workflow("three_steps", input="hello")
    state = await client.wait_for_workflow_completion(instance_id, fetch_payloads=False, timeout_in_seconds=60)
    assert state is not None
    assert state.runtime_status.name == "COMPLETED", state.runtime_status
    return (time.perf_counter() - begun) * 1e3


async def at_once(client: DaprWorkflowClient, database: Database, width: int, count: int) -> Burst:
    """`count` turns, `width` of them at a time."""
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await one(client)

    begun, cpu, commits = time.perf_counter(), time.process_time(), database.commits
    await asyncio.gather(*(lane() for _ in range(width)))
    seconds = time.perf_counter() - begun
    cpu_ms = (time.process_time() - cpu) * 1e3 / count
    return Burst(count / seconds, cpu_ms, (database.commits - commits) / count)
