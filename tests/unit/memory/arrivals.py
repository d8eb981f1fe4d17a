"""Turns as their events tell them, for tests."""

from everturn.memory.domain import Arrival


def turn(
    sequence: int, *, turn_id: str | None = None, session_id: str = "s", user_id: str = "u", text: str = ""
) -> Arrival:
    """A turn with a place of its own."""
    name = turn_id or f"t{sequence}"
    return Arrival(
        user_id=user_id,
        session_id=session_id,
        turn_id=name,
        sequence=sequence,
        event_id=None,
        message=text or f"message of {name}",
        reply=f"reply of {name}",
        accepted_at="2026-01-31T12:00:00.000Z",
        replied_at="2026-01-31T12:00:01.000Z",
    )


def placeless(event_id: str, *, session_id: str = "s", user_id: str = "u") -> Arrival:
    """A turn of an older publisher: known by its event's id alone."""
    return Arrival(
        user_id=user_id,
        session_id=session_id,
        turn_id=None,
        sequence=None,
        event_id=event_id,
        message=f"message of {event_id}",
        reply=f"reply of {event_id}",
        accepted_at="2026-01-31T12:00:00.000Z",
        replied_at="2026-01-31T12:00:01.000Z",
    )
