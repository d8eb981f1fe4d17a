"""What is read from a request besides its body: ids in paths, text in headers, what the client prefers.

Any id works in a path, percent-encoded, slashes too. Servers decode a path before routing, so an encoded slash would
split an id and a trailing newline would get lost in the router's pattern. `EncodedPath` routes on the path as it was
sent; `PathId` decodes one segment of it.
"""

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from fastapi import Header, Path
from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from everturn.contracts.fields import id_fault

_IS_NORMAL = re.compile(rb"[A-Za-z0-9._~/-]*").fullmatch


class EncodedPath:
    """Middleware: puts the percent-encoded path into `scope["path"]`, each segment in one normal form.

    Only unreserved characters (RFC 3986 section 2.3) stay as they are, so that `/ch%61t/` is still `/chat/`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": _normal(scope)}
        await self._app(scope, receive, send)


def encoded_id(value: str) -> str:
    """`value` as one segment of a path, for building links and requests."""
    return quote(value, safe="")


def _normal(scope: Scope) -> str:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"])
    if _IS_NORMAL(raw):
        return raw.decode("ascii")
    return "/".join(quote_from_bytes(unquote_to_bytes(segment), safe="") for segment in raw.split(b"/"))


def _decoded_id(segment: str) -> str:
    try:
        value = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None
    if fault := id_fault(value):
        raise ValueError(fault)
    return value


PathId = Annotated[str, Path(description="An id of 1 to 256 characters, percent-encoded."), AfterValidator(_decoded_id)]
"""Type of a route's path parameter that is an id: decoded and checked; a bad one is 422."""


def header_text(value: str) -> str:
    """`value`, which servers hand on as Latin-1, as its sender meant it: UTF-8 if it is that.

    The bytes above ASCII have no meaning of their own in a header (RFC 9110 section 5.5), and clients send UTF-8.
    """
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers; `wait_s` is None if it does not say. What cannot be read is ignored (section 2)."""

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
