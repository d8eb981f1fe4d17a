"""Ids: 1 to 256 characters, not blank, without control or format characters, compared exactly (no normalisation)."""

import unicodedata
import uuid
from typing import NewType

UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)

MAX_ID_CHARS = 256
# Cc control, Cf format, Cs surrogate, Zl and Zp separators: invisible, so two ids that look alike would differ.
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def id_fault(value: str) -> str | None:
    """Say what is wrong with `value` as an id, as the end of a sentence that begins with its name; None where fine."""
    if not value.strip():
        return "must not be blank"
    if len(value) > MAX_ID_CHARS:
        return f"must have at most {MAX_ID_CHARS} characters, not {len(value)}"
    # Printable says that there is none of them; it is false for others too, such as unassigned ones.
    if not value.isprintable() and any(unicodedata.category(char) in _FORBIDDEN_CATEGORIES for char in value):
        return "must not contain control or invisible format characters"
    return None


def new_id() -> str:
    """A new random id (uuid4, RFC 9562 section 5.4)."""
    return str(uuid.uuid4())


def key_part(value: str) -> str:
    """`value` as a part of a state key: Dapr refuses `||` in keys, so `|` (and the escape itself) are escaped."""
    return value.replace("%", "%25").replace("|", "%7C")
