"""The policies of Dapr's Resiliency resource (https://docs.dapr.io/operations/resiliency/policies/)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# Go's duration units, in seconds (https://pkg.go.dev/time#ParseDuration).
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def duration_s(text: str) -> float:
    """Seconds of a Go duration (`1m30s`, `500ms`). Raises ValueError."""
    total, at = 0.0, 0
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None:
            break
        total += float(part[1]) * _UNITS_S[part[2]]
        at = part.end()
    if at == 0 or at != len(text):
        raise ValueError(f"{text!r} is no duration like 15s or 1m30s")
    return total


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed delivery or call is tried again.

    Defaults of an exponential policy: 0.5 s first, factor 1.5, half of it random, at most 60 s
    (github.com/cenkalti/backoff v4, which Dapr uses). `max_retries` -1 means for ever. `statuses`: ranges of HTTP
    statuses that are worth another try, None where every failure is.
    """

    kind: Literal["constant", "exponential"] = "constant"
    duration_s: float = 5.0
    initial_interval_s: float = 0.5
    multiplier: float = 1.5
    randomization: float = 0.5
    max_interval_s: float = 60.0
    max_retries: int = -1
    statuses: tuple[tuple[int, int], ...] | None = None

    @property
    def longest_delay_s(self) -> float:
        """No delay of this policy is longer."""
        if self.kind == "constant":
            return self.duration_s
        return self.max_interval_s * (1 + self.randomization)

    def is_for(self, status: int) -> bool:
        """Whether an answer with `status`, a failure, is worth another try."""
        return self.statuses is None or any(first <= status <= last for first, last in self.statuses)

    def delay_s(self, attempts: int, uniform: Callable[[], float]) -> float | None:
        """Seconds to wait after the attempt number `attempts` (from 1), None where no further one is allowed.

        `uniform` gives a random number from 0 to 1.
        """
        if 0 <= self.max_retries < attempts:
            return None
        if self.kind == "constant":
            return self.duration_s
        # The exponent is bounded: the interval is at its cap long before, and a float has an end.
        interval = self.initial_interval_s * self.multiplier ** min(attempts - 1, 100)
        interval = min(interval, self.max_interval_s)
        return interval * (1 + self.randomization * (2 * uniform() - 1))


# What holds without any Resiliency file, and what components/resiliency.yaml says for real Dapr.
DEFAULT_DELIVERY_RETRY = RetryPolicy(kind="exponential", max_interval_s=15.0, max_retries=-1)
NO_RETRY = RetryPolicy(max_retries=0)


@dataclass(frozen=True, slots=True)
class Condition:
    """`count op limit`, of the counts of a circuit breaker."""

    count: str
    op: str
    limit: int


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit breaker opens: where all conditions of `trip` hold after a failure. Times in seconds.

    `interval_s`: after so long a time the counts of a closed one begin anew, 0 for never. `timeout_s`: so long it stays
    open. `max_requests`: so many may try it out then, and close it by succeeding.
    """

    trip: tuple[Condition, ...] = (Condition("consecutiveFailures", ">", 5),)
    interval_s: float = 0.0
    timeout_s: float = 60.0
    max_requests: int = 1


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """What holds for calls of one target; None stands for no time limit (seconds), no further try, no breaker."""

    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    breaker: BreakerPolicy | None = None


NO_POLICY = TargetPolicy()
