"""The chat service's metrics (names in the contract), in a registry of the app's own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a fast demo to a slow model with retries.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ChatMetrics:
    """Counts what this process has done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Counter("everturn_turns", "Turns that ended.", ["status"], registry=registry)
        self._attempts = Counter(
            "everturn_step_attempts", "Attempts of steps that ended.", ["step", "outcome"], registry=registry
        )
        self._under_way = Gauge(
            "everturn_step_attempts_under_way", "Attempts that run or wait for their place.", registry=registry
        )
        self._turn_seconds = Histogram(
            "everturn_turn_seconds", "Seconds from acceptance to end.", registry=registry, buckets=_SECONDS
        )
        self._step_seconds = Histogram(
            "everturn_step_seconds", "Seconds of completed attempts.", ["step"], registry=registry, buckets=_SECONDS
        )
        self._resumed = Counter("everturn_turns_resumed", "Unfinished turns found at a start.", registry=registry)
        self._refused = Counter("everturn_requests_refused", "Requests refused for load.", registry=registry)
        self._failures = Counter("everturn_turn_failures", "Turns that failed.", ["step", "kind"], registry=registry)

    def turn_ended(self, status: str, seconds: float) -> None:
        self._turns.labels(status).inc()
        self._turn_seconds.observe(max(0.0, seconds))

    def turn_failed(self, step: str, kind: str) -> None:
        self._failures.labels(step, kind).inc()

    def step_attempted(self, step: str, outcome: str, seconds: float | None) -> None:
        self._attempts.labels(step, outcome).inc()
        if seconds is not None:
            self._step_seconds.labels(step).observe(seconds)

    def attempts_under_way(self, count: int) -> None:
        self._under_way.set(count)

    def turns_resumed(self, count: int) -> None:
        self._resumed.inc(count)

    def request_refused(self) -> None:
        self._refused.inc()
