"""Ids in paths: any id works, percent-encoded, slashes too.

Servers decode a path before routing, so an encoded slash would split an id and a trailing newline would get lost in
the router's pattern. `EncodedPath` routes on the path as it was sent; `PathId` decodes one segment of it.
"""

import re
from typing import Annotated
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from fastapi import Path
from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from everturn.contracts.ids import id_fault

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
