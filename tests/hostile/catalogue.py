"""All attacks, and how many are run. Importing the modules adds theirs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from tests.hostile import callers, connections, grpc_calls, inputs, texts
from tests.hostile.attack import ATTACKS, Attack, Row, run
from tests.hostile.stages import Stages

MODULES = (callers, connections, grpc_calls, inputs, texts)


def attacks(words: tuple[str, ...] = ()) -> list[Attack]:
    """Every attack, or those whose name has one of `words`."""
    return [each for each in ATTACKS if not words or any(word in each.name for word in words)]


async def run_all(
    chosen: Sequence[Attack], stages: Stages, report: Callable[[Row], None] = lambda _: None
) -> Mapping[str, Row]:
    """Run `chosen`, one after the other but for those that mostly wait; `report` is called with each as it ends."""
    rows: dict[str, Row] = {}

    async def run_one(each: Attack) -> None:
        rows[each.name] = row = await run(each, stages)
        report(row)

    async with asyncio.TaskGroup() as group:
        for each in chosen:
            if each.beside:
                group.create_task(run_one(each))
        for each in chosen:
            if not each.beside:
                await run_one(each)
    return {each.name: rows[each.name] for each in chosen}
