"""Work that is done again and again while a service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from everturn.errors import EverturnError

log = logging.getLogger(__name__)


@asynccontextmanager
async def repeating(name: str, every_s: float, work: Callable[[], Awaitable[int]]) -> AsyncIterator[None]:
    """Do `work` every `every_s` seconds while the block runs, and log how much it did. An error waits for the next."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                log.info("repeated", extra={"work": name, "count": await work()})
            except Exception as error:  # noqa: BLE001 - the loop's edge: one error must not end all later rounds
                reason = error.message if isinstance(error, EverturnError) else type(error).__name__
                log.warning("interrupted", extra={"work": name, "reason": reason})

    task = asyncio.create_task(repeat(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
