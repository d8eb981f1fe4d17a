"""Times on the wire: ISO 8601 in UTC with a `Z` and milliseconds."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def to_wire(moment: datetime) -> str:
    """`2026-01-31T12:00:00.123Z`. A naive `moment` is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")
