"""The `Prefer` header (RFC 7240): `respond-async`, and `wait=N` seconds."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Header


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers; `wait_s` is None where it does not say. What cannot be read is ignored (section 2)."""

    respond_async: bool = False
    wait_s: float | None = None


async def preferences_of(
    prefer: Annotated[list[str] | None, Header(description="`respond-async`, `wait=N` seconds (RFC 7240).")] = None,
) -> Preferences:
    """The preferences of a request, as a FastAPI dependency. Of a preference given twice the first counts.

    A coroutine, because FastAPI runs a plain function in a thread of its own.
    """
    respond_async, wait_s = False, None
    for token in ",".join(prefer or []).split(","):
        name, _, value = (part.strip().strip('"') for part in token.split(";")[0].partition("="))
        if name.lower() == "respond-async":
            respond_async = True
        elif name.lower() == "wait" and wait_s is None and value.isascii() and value.isdecimal():
            wait_s = float(value)
    return Preferences(respond_async, wait_s)
