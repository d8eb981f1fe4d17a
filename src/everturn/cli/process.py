"""What every long-running command has in common: its loop, the signal that ends it, the time that the end may take."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

log = logging.getLogger(__name__)

_EXIT_AT_ONCE = 0
# Thresholds of the garbage collector's three generations.
_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _OLDER_COLLECTIONS = 20_000, 10, 10
# Seconds that a resumed workflow takes, and the longest time without the collector.
_RESUME_S = 0.001
_MOST_RESUME_S = 20.0


class Deadline:
    """The end of a graceful stop, once one has begun."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._at: float | None = None

    def begin(self) -> None:
        self._at = asyncio.get_running_loop().time() + self._limit_s

    def left_s(self) -> float:
        if self._at is None:
            return self._limit_s
        return max(0.0, self._at - asyncio.get_running_loop().time())


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and the first Ctrl-C; the second Ctrl-C ends the process."""
    stopping = asyncio.Event()

    def interrupted() -> None:
        if stopping.is_set():
            end_at_once()
        stopping.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    return stopping


def end_at_once() -> None:
    """End without waiting for anything: what is acknowledged is on disk, and the next start resumes the rest."""
    log.warning("ended_at_once")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(_EXIT_AT_ONCE)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one for this system; None stands for Python's own."""
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


def spare_collector(*, resumed: int = 0) -> None:
    """What the start has made stays for good: let the garbage collector pass it over, and look at the rest less often.

    A collection stops the loop, and one of everything takes a tenth of a second here. What a turn leaves behind is
    freed without it, cycles aside (https://docs.python.org/3/library/gc.html#gc.freeze). While `resumed` workflows come
    to where they were, all that is made is needed: it would be looked through several times for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _OLDER_COLLECTIONS)
    if resumed:
        asyncio.get_running_loop().call_later(min(resumed * _RESUME_S, _MOST_RESUME_S), gc.enable)
    else:
        gc.enable()
