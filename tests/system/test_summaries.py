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
    """Let time pass until one more summary was made, and no other is to come."""
    before = len(_summaries(system))

    async def is_made() -> bool:
        return len(_summaries(system)) > before and system.clock.next_alarm_in_s is None

    await system.until(is_made)


def _summaries(system: System) -> list[object]:
    return [request for request in system.endpoint.requests if not request.body.get("tools")]
