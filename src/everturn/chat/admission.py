"""Limits on what a process serves and holds at once: what is over them is refused before anything is accepted."""

from collections.abc import Iterator
from contextlib import contextmanager

from everturn.chat.metrics import ChatMetrics
from everturn.errors import TransientError

_RETRY_AFTER_S = 2.0


class Attempts:
    """Counts the attempts of steps that run or wait for their place in this process: what its turns hold in memory.

    New messages are accepted while there are fewer than `limit` of them. What is accepted already always goes on.
    """

    def __init__(self, limit: int, metrics: ChatMetrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._under_way = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Count an attempt while the block runs."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._under_way += more
        self._metrics.attempts_under_way(self._under_way)

    def refuse_new(self) -> None:
        """Raises TransientError (kind `overloaded`) where no new turn can be taken on."""
        if self._under_way >= self._limit:
            self._metrics.request_refused()
            raise TransientError(
                f"{self._under_way} turns are at work already; try again",
                kind="overloaded",
                retry_after_s=_RETRY_AFTER_S,
            )


class Admission:
    """Counts the requests in progress of this process; at most `limit` (requests)."""

    def __init__(self, limit: int, metrics: ChatMetrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._in_progress = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place while a request is served. Raises TransientError (kind `overloaded`) where none is left."""
        if self._in_progress >= self._limit:
            self._metrics.request_refused()
            raise TransientError(
                f"{self._in_progress} messages are being answered already; try again",
                kind="overloaded",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1
