"""Turns as their events tell them, for tests."""

from everturn.memory.domain import Arrival, ByEvent, ByTurn, Turn


def turn(
    sequence: int, *, turn_id: str | None = None, session_id: str = "s", user_id: str = "u", text: str = ""
) -> Arrival:
    """A turn with a place of its own."""
    name = turn_id or f"t{sequence}"
    return Arrival(user_id, session_id, ByTurn(name, sequence), _said(name, text, turn_id=name))


def placeless(event_id: str, *, session_id: str = "s", user_id: str = "u") -> Arrival:
    """A turn of an older publisher: known by its event's id alone."""
    return Arrival(user_id, session_id, ByEvent(event_id), _said(event_id))


def name_of(arrival: Arrival) -> str:
    """The name that a stored turn of `arrival` has in these tests."""
    return arrival.key.turn_id if isinstance(arrival.key, ByTurn) else arrival.key.event_id


def _said(name: str, text: str = "", *, turn_id: str | None = None) -> Turn:
    return Turn(
        turn_id=turn_id,
        text=text or f"message of {name}",
        reply=f"reply of {name}",
        accepted_at="2026-01-31T12:00:00.000Z",
        replied_at="2026-01-31T12:00:01.000Z",
    )
