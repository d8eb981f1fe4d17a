import asyncio
import gc
from collections.abc import Iterator

import pytest

from everturn.cli.process import spare_collector


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.disable()  # as a start is
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


async def test_a_start_ends_with_the_collector_on_and_what_was_made_passed_over() -> None:
    spare_collector()

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


async def test_while_workflows_are_resumed_no_garbage_is_looked_for_and_afterwards_it_is() -> None:
    spare_collector(resumed=3)
    at_first = gc.isenabled()

    async with asyncio.timeout(20):
        while not gc.isenabled():  # noqa: ASYNC110 - the collector has no event
            await asyncio.sleep(0)

    assert not at_first
