"""What this process does and how much of it at once: metrics (names in the contract), and limits for new messages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from everturn.errors import TransientError

# From a fast demo to a slow model with retries.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_RETRY_AFTER_S = 2.0


class ChatMetrics:
    """Counts what this process has done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        count, seconds = partial(Counter, registry=registry), partial(Histogram, registry=registry, buckets=_SECONDS)
        self._turns = count("everturn_turns", "Turns that ended, by status: completed, failed, cancelled.", ["status"])
        self._attempts = count(
            "everturn_step_attempts",
            "Attempts of steps that ended, by outcome: completed, failed_transient, failed_terminal.",
            ["step", "outcome"],
        )
        self._under_way = Gauge(
            "everturn_step_attempts_under_way", "Attempts that run or wait for their place.", registry=registry
        )
        self._turn_seconds = seconds("everturn_turn_seconds", "Seconds of a turn from its acceptance to its end.")
        self._step_seconds = seconds("everturn_step_seconds", "Seconds of completed attempts of steps.", ["step"])
        self._resumed = count("everturn_turns_resumed", "Unfinished turns found at a start.")
        self._refused = count("everturn_requests_refused", "Requests refused for load.")
        self._tokens = count(
            "everturn_tokens", "Tokens of model calls, by direction: input, output.", ["model", "direction"]
        )
        self._failures = count(
            "everturn_turn_failures", "Turns that failed, by the step and the kind of its error.", ["step", "kind"]
        )

    def turn_ended(self, status: str, seconds: float) -> None:
        self._turns.labels(status).inc()
        self._turn_seconds.observe(max(0.0, seconds))

    def turn_failed(self, step: str, kind: str) -> None:
        self._failures.labels(step, kind).inc()

    def tokens_used(self, model: str, used: Sequence[int]) -> None:
        """`used`: input and output tokens of a call; nothing if it has none."""
        for direction, count in zip(("input", "output"), used, strict=False):
            self._tokens.labels(model, direction).inc(count)

    def step_attempted(self, step: str, outcome: str, seconds: float | None) -> None:
        self._attempts.labels(step, outcome).inc()
        if seconds is not None:
            self._step_seconds.labels(step).observe(seconds)

    def show_under_way(self, attempts: "InFlight") -> None:
        self._under_way.set_function(lambda: attempts.count)

    def turns_resumed(self, count: int) -> None:
        self._resumed.inc(count)

    def request_refused(self) -> None:
        self._refused.inc()


class InFlight:
    """Counts what is in progress in this process; `what` begins the error's sentence.

    Of requests, a new one is refused at the limit. Of attempts of steps, which hold the turns in memory, none is ever
    refused, but new messages are.
    """

    def __init__(self, limit: int, what: str, metrics: ChatMetrics) -> None:
        self.count = 0
        self._limit = limit
        self._what = what
        self._metrics = metrics

    def refuse_more(self) -> None:
        """Raises TransientError (kind `overloaded`) at the limit."""
        if self.count >= self._limit:
            self._metrics.request_refused()
            sentence = f"{self.count} {self._what} already; try again"
            raise TransientError(sentence, kind="overloaded", retry_after_s=_RETRY_AFTER_S)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one while the block runs."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
