"""A limit on requests that are served at once: what is over it is refused before anything is accepted."""

from collections.abc import Iterator
from contextlib import contextmanager

from everturn.chat.metrics import ChatMetrics
from everturn.errors import TransientError

_RETRY_AFTER_S = 2.0


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
