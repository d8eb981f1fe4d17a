"""What a service does in the background while it runs: it purges what has ended long ago."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from everturn.errors import EverturnError

log = logging.getLogger(__name__)

_EVERY_S = 600.0


@asynccontextmanager
async def purging(purge: Callable[[], Awaitable[int]]) -> AsyncIterator[None]:
    """Purge every ten minutes while the block runs, and log how much there was. After an error the next round tries."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                log.info("purged", extra={"count": await purge()})
            except Exception as error:  # noqa: BLE001 - the loop's edge: one error must not end all later rounds
                reason = error.message if isinstance(error, EverturnError) else type(error).__name__
                log.warning("purge_failed", extra={"reason": reason})

    task = asyncio.create_task(repeat(), name="purge")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
