"""The kinds of fields that messages are made of: ids, text, tags, times. Each is checked the same everywhere.

An id has 1 to 256 characters, is not blank, has no control or format characters and is compared exactly, without
normalisation. A text can be stored and given back exactly. Times are ISO 8601 in UTC with a `Z` and milliseconds.
"""

import unicodedata
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_ID_CHARS = 256
MAX_TAG_CHARS = 64
# Cc control, Cf format, Cs surrogate, Zl and Zp separators: invisible, so two ids that look alike would differ.
# Letters and signs that show nothing: Hangul fillers, the blank of Braille, the grapheme joiner.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def id_fault(value: str) -> str | None:
    """Say what is wrong with `value` as an id, as the end of a sentence that begins with its name; None if nothing."""
    if not value.strip() or all(char in _INVISIBLE or char.isspace() for char in value):
        return "must not be blank"
    if len(value) > MAX_ID_CHARS:
        return f"must have at most {MAX_ID_CHARS} characters, not {len(value)}"
    # Printable says that there is none of them; it is false for others too, such as unassigned ones.
    if not value.isprintable() and any(unicodedata.category(char) in _FORBIDDEN_CATEGORIES for char in value):
        return "must not contain control or invisible format characters"
    return None


def checked_id(value: str) -> str:
    """For pydantic: `value`, if it is an id. Raises ValueError with the rest of a sentence if not."""
    if fault := id_fault(value):
        raise ValueError(fault)
    return value


def checked_text(value: str) -> str:
    """For pydantic: `value`, if it can be kept exactly. Raises ValueError with the rest of a sentence if not.

    NUL is refused by many stores, a lone surrogate has no UTF-8 form (RFC 3629 section 3).
    """
    if "\x00" in value:
        raise ValueError("must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return value


# `id_fault` checks the length, in a sentence of its own; the schema only documents it.
Id = Annotated[str, AfterValidator(checked_id), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_CHARS})]
Text = Annotated[str, AfterValidator(checked_text)]
Tag = Annotated[str, Field(max_length=MAX_TAG_CHARS), AfterValidator(checked_text)]


def new_id() -> str:
    """A new random id (uuid4, RFC 9562 section 5.4)."""
    return str(uuid.uuid4())


def key_part(value: str) -> str:
    """`value` as a part of a state key: Dapr refuses `||` in keys, so `|` (and the escape itself) are escaped."""
    return value.replace("%", "%25").replace("|", "%7C")


def without_lone_surrogates(value: str) -> str:
    """`value` with every lone surrogate replaced by U+FFFD, for text of a model that must be kept anyhow."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# contracts.md, "Model faults": Retry-After is waited for up to 10 minutes; longer is permanent.
MAX_RETRY_AFTER_S = 600.0


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def to_wire(moment: datetime) -> str:
    """`2026-01-31T12:00:00.123Z`. A naive `moment` is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number of seconds or an HTTP date (RFC 9110 section 10.2.3).

    None if it is absent or cannot be read; a date in the past is 0.
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - utc_now()).total_seconds())
    except (ValueError, TypeError):
        return None
