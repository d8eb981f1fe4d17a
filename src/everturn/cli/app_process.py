"""The command that `everturn runtime -- COMMAND` runs: it begins with its runtime and ends with it."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence

from everturn.errors import StartError

log = logging.getLogger(__name__)


class AppProcess:
    """A command in a session of its own, so that what it has started can be ended with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> "AppProcess":
        """`command`, with `environment` beside that of this process. Raises StartError where it cannot be run."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **environment}, start_new_session=True
            )
        except OSError as error:
            raise StartError(f"cannot run {command[0]!r}: {error.strerror}") from error
        log.info("app_started", extra={"pid": process.pid})
        return cls(process)

    async def ended(self) -> int:
        """Its exit code, once it has ended; 128 and the signal's number where a signal ended it, as shells have it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def stop(self, limit_s: float) -> None:
        """SIGTERM, and SIGKILL to what is left of it after `limit_s` seconds."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._process.wait()
        # The command may have ended before what it started.
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
