"""When a summary is made: once a session is quiet, or has many new turns."""

from pathlib import Path
from typing import Any, cast

from everturn.dapr.workflows import Sidecar
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running


class CountedStarts:
    """The workflow client of a sidecar, and how often it starts a workflow."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.count = 0

    async def schedule_new_workflow(self, *arguments: Any, **options: Any) -> str:
        self.count += 1
        return str(await self._inner.schedule_new_workflow(*arguments, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CountingSidecar:
    def __init__(self, inner: Sidecar) -> None:
        self._inner = inner
        self.workflows: Any = CountedStarts(inner.workflows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_summary_waits_until_its_session_is_quiet(system: System) -> None:
    await system.say("hello")
    await _stored(system, 2, alarm_s=30.0)
    system.clock.advance(30.0)
    await _summarised(system, 1)


async def test_a_turn_that_comes_meanwhile_is_waited_behind(system: System) -> None:
    await system.say("hello")
    await _stored(system, 2, alarm_s=30.0)
    system.clock.advance(20.0)
    await system.say("hello")
    await _stored(system, 4, alarm_s=10.0)
    system.clock.advance(10.0)

    await _stored(system, 4, alarm_s=30.0)
    assert not _summaries(system)
    system.clock.advance(30.0)
    await _summarised(system, 1)


async def test_eight_new_turns_are_summarised_at_once(system: System) -> None:
    for number in range(8):
        await system.say(f"hello {number}")

    await _summarised(system, 1)
    (summary,) = _summaries(system)
    assert all(f"hello {number}" in str(summary) for number in range(8))


async def test_after_a_summary_the_next_one_waits_for_quiet_again(system: System) -> None:
    for summaries in (1, 2):
        await system.say("hello")
        await _stored(system, 2 * summaries, alarm_s=30.0)
        system.clock.advance(30.0)
        await _summarised(system, summaries)


async def test_a_summary_is_started_once_for_all_turns_that_it_waits_for(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    sidecars: list[CountingSidecar] = []

    def counting(inner: Sidecar) -> Sidecar:
        sidecars.append(CountingSidecar(inner))
        return cast(Sidecar, sidecars[0])

    async with running(tmp_path, endpoint, clock, memory_sidecar=counting) as system:
        for number in (1, 2, 3):
            await system.say("hello")
            await _stored(system, 2 * number, alarm_s=30.0)
        assert sidecars[0].workflows.count == 1

        system.clock.advance(30.0)
        await _stored(system, 6, alarm_s=30.0)
        system.clock.advance(30.0)
        await _summarised(system, 1)
        await system.say("hello")
        await _stored(system, 8, alarm_s=30.0)

    assert sidecars[0].workflows.count == 2


async def _stored(system: System, entries: int, alarm_s: float) -> None:
    """Wait for the history, and until its summary waits for `alarm_s` seconds, while the clock stands."""

    async def is_there() -> bool:
        return len(await system.history()) >= entries and system.clock.next_alarm_in_s == alarm_s

    await system.until(is_there, moving=False)


async def _summarised(system: System, count: int) -> None:
    """Wait for `count` summaries, each by one call of the model, while the clock stands."""

    async def is_made() -> bool:
        return await _refreshed(system) >= count

    await system.until(is_made, moving=False)
    assert len(_summaries(system)) == count


async def _refreshed(system: System) -> float:
    metrics = (await system.memory.get("/metrics")).text.splitlines()
    counts = [line for line in metrics if line.startswith('everturn_summaries_total{outcome="refreshed"}')]
    return float(counts[0].rpartition(" ")[2]) if counts else 0.0


def _summaries(system: System) -> list[dict[str, Any]]:
    return [request.body for request in system.endpoint.requests if not request.body.get("tools")]
