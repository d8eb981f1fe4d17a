"""Making history events."""

from typing import Any

from everturn.runtime.sdk import HistoryEvent, Timestamp


def timestamp_of(seconds: float) -> Timestamp:
    """`seconds` since 1970-01-01 UTC as a protobuf timestamp, to the microsecond."""
    micros = round(seconds * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def event_at(timestamp: Timestamp, **payload: Any) -> HistoryEvent:
    """An event that no action caused: its id is -1, as in Dapr."""
    return HistoryEvent(eventId=-1, timestamp=timestamp, **payload)
