"""When a summary is made: soon after a session begins, later for several turns together."""

import pytest

from tests.system.conftest import System


@pytest.mark.parametrize(("turns", "delays"), [(1, [5.0]), (3, [5.0]), (1, [5.0, 15.0]), (3, [5.0, 15.0])])
async def test_turns_that_come_together_are_one_summary(system: System, turns: int, delays: list[float]) -> None:
    seen = []
    for _ in delays:
        entries = len(await system.history()) + 2 * turns
        for _ in range(turns):
            await system.say("hello")
        await _stored(system, entries)
        seen.append(system.clock.next_alarm_in_s)
        await _summarised(system)

    assert seen == delays
    assert len(_summaries(system)) == len(delays)


async def _stored(system: System, entries: int) -> None:
    """Wait for the history while the clock stands."""

    async def is_there() -> bool:
        return len(await system.history()) >= entries

    await system.until(is_there, moving=False)


async def _summarised(system: System) -> None:
    """Let time pass until one more summary is in its place."""
    before = await _refreshed(system)

    async def is_made() -> bool:
        return await _refreshed(system) > before

    await system.until(is_made)


async def _refreshed(system: System) -> float:
    metrics = (await system.memory.get("/metrics")).text.splitlines()
    counts = [line for line in metrics if line.startswith('everturn_summaries_total{outcome="refreshed"}')]
    return float(counts[0].rpartition(" ")[2]) if counts else 0.0


def _summaries(system: System) -> list[object]:
    return [request for request in system.endpoint.requests if not request.body.get("tools")]
