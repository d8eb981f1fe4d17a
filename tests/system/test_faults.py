"""The switches for faults, on the whole system."""

from tests.system.conftest import System


async def test_an_event_that_waits_for_the_memory_service_is_delivered_at_once_when_it_is_back(system: System) -> None:
    system.faults.set_away("memory", away=True)
    await system.ended(await system.accept("Hi"))

    system.faults.set_away("memory", away=False)

    async def is_stored() -> bool:
        return len(await system.history()) == 2

    await system.until(is_stored, moving=False)
