"""The memory service's metrics (names in the contract), in a registry of the application's own."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class MemoryMetrics:
    """Counts what this process has done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "everturn_events",
            "Events that were dealt with, by outcome: stored, duplicate, dropped.",
            ["outcome"],
            registry=registry,
        )
        self._event_seconds = Histogram(
            "everturn_event_seconds",
            "Seconds from an event's arrival to its answer.",
            registry=registry,
            buckets=_SECONDS,
        )
        self._dead_letters = Counter("everturn_dead_letters", "Events in the dead letters.", registry=registry)
        self._summaries = Counter(
            "everturn_summaries",
            "Tries to refresh a summary, by outcome: refreshed, failed.",
            ["outcome"],
            registry=registry,
        )
        self._summary_seconds = Histogram(
            "everturn_summary_seconds", "Seconds of a try to refresh a summary.", registry=registry, buckets=_SECONDS
        )
        for outcome in ("stored", "duplicate", "dropped"):
            self._events.labels(outcome)

    def event_ended(self, outcome: str, seconds: float) -> None:
        self._events.labels(outcome).inc()
        self._event_seconds.observe(seconds)

    def dead_letter_received(self) -> None:
        self._dead_letters.inc()

    def summary_tried(self, outcome: str, seconds: float) -> None:
        self._summaries.labels(outcome).inc()
        self._summary_seconds.observe(seconds)
