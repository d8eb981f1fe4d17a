"""The command that `everturn runtime -- COMMAND` runs: it begins with its runtime, and neither outlives the other."""

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence

from everturn.errors import StartError

log = logging.getLogger(__name__)

# Its input ends when the runtime is gone, whatever ended it; then it ends the group that it was given before.
_WATCH = 'read -r group || exit 0; read -r _; kill -s KILL -- "-$group"'


class AppProcess:
    """A command in a session of its own, so that what it has started can be ended with it.

    A watcher beside it ends them if this process no longer can: a shell that waits for the end of a pipe, which is
    the same on Linux and macOS, and reaches what the command has started. Not reached is what has made itself a session
    of its own, and the command itself in the instant between its start and the watcher's hearing of it.
    """

    def __init__(self, process: Process, watcher: Process) -> None:
        self._process = process
        self._watcher = watcher

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> "AppProcess":
        """`command`, with `environment` added to that of this process. Raises StartError if it cannot be run."""
        watcher = await _start_watcher()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **environment}, start_new_session=True
            )
        except OSError as error:
            await _end(watcher)
            raise StartError(f"cannot run {command[0]!r}: {error.strerror}") from error
        assert watcher.stdin is not None
        watcher.stdin.write(f"{process.pid}\n".encode())
        log.info("app_started", extra={"pid": process.pid})
        return cls(process, watcher)

    async def ended(self) -> int:
        """Its exit code, once it has ended; 128 and the signal's number if a signal ended it, as shells have it."""
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
        await _end(self._watcher)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


async def _start_watcher() -> Process:
    """In a session of its own as well: a Ctrl-C is not for it, nor a signal to the group of this process."""
    try:
        return await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _WATCH, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise StartError(f"cannot run '/bin/sh': {error.strerror}") from error


async def _end(watcher: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        watcher.kill()
    await watcher.wait()
