"""`everturn up` in a process that kills itself, as `kill -9` does, at a write of its chat service.

`DIES_AT`: which one, from 1; 0 is none. `DIES_AFTER`: not before it is done, but after. Each adds a byte to the file
`WRITES`.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from everturn import logs
from everturn.cli.up import run_up
from everturn.compose import SidecarOver, Wiring
from everturn.dapr.client import SidecarClient
from everturn.dapr.workflows import Sidecar
from everturn.settings import load_settings

_WRITES = ("save_state", "transact", "publish")


class MortalClient:
    """`inner`, at whose write number `at` the process ends."""

    def __init__(self, inner: SidecarClient, at: int, log: Path, *, is_after: bool) -> None:
        self._inner = inner
        self._at = at
        self._log = log
        self._is_after = is_after
        self._writes = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._mortal(found) if name in _WRITES else found

    def _mortal(self, write: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def wrapped(*args: Any, **kwargs: Any) -> None:
            self._writes += 1
            with self._log.open("a") as log:
                log.write(".")
            is_here = self._writes == self._at
            if is_here and not self._is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            await write(*args, **kwargs)
            if is_here:
                os.kill(os.getpid(), signal.SIGKILL)

        return wrapped


def _mortal(sidecar: Sidecar) -> Sidecar:
    at, is_after = int(os.environ["DIES_AT"]), bool(os.environ.get("DIES_AFTER"))
    client: Any = MortalClient(sidecar.client, at, Path(os.environ["WRITES"]), is_after=is_after)
    return SidecarOver(sidecar, client, sidecar.transport)


if __name__ == "__main__":
    logs.configure()
    run_up(load_settings(), Wiring(chat_sidecar=_mortal))
