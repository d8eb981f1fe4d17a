"""What is read from a request, ids in paths, text in headers, what the client prefers, strict JSON; what it holds.

Any id works in a path, percent-encoded, slashes too. Servers decode a path before routing, so an encoded slash would
split an id and a trailing newline would get lost in the router's pattern. `middleware.EncodedPath` routes on the path
as it was sent; `PathId` decodes one segment of it.
"""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import Depends, Header, Path, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import from_json
from starlette.responses import Response

from everturn.contracts.fields import id_fault
from everturn.web.problems import Problem

# Of JSON: what begins or separates values, outside strings. Behind each are an object or two and a few faults, however
# short it is. The longest conversation that is taken (`MAX_MESSAGES`) has some 14,000, with a call of a tool in each
# second message.
_MARK = re.compile(rb'(?:[^"\[{,]++|"(?:[^"\\]++|\\.)*+"?)*+(?:[\[{,]|\Z)', re.DOTALL)
_MOST_MARKS = 16_000
# Faults of a body that are named; a short body has few.
_MOST_FAULTS, _SHORT_BYTES = 100, 1_024
# https://mimesniff.spec.whatwg.org/#json-mime-type; a page can send none of them without a preflight.
_IS_JSON = re.compile(r"application/(?:[^\s;/]+\+)?json\s*(?:;|\Z)", re.IGNORECASE).match


def encoded_id(value: str) -> str:
    """`value` as one segment of a path, for building links and requests."""
    return quote(value, safe="")


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


class _JsonRequest(Request):
    """`shape`: of what its body has to be, None without one."""

    def __init__(self, request: Request, shape: type[BaseModel] | None) -> None:
        super().__init__(request.scope, request.receive)
        self._shape = shape

    async def body(self) -> bytes:
        """Raises Problem (422) if there is a body that its sender does not call JSON."""
        body = await super().body()
        if body and not _IS_JSON(self.headers.get("content-type", "")):
            fault = {"field": "content-type", "message": "must be application/json"}
            raise Problem(422, "content-type: must be application/json", extras={"errors": [fault]})
        return body

    async def json(self) -> Any:
        """The parsed body. What is no JSON text (RFC 8259), not UTF-8, too deep or too rich in parts is 422."""
        body = await self.body()
        if len(body) > _MOST_MARKS and next(islice(_MARK.finditer(body), _MOST_MARKS, None), None):
            raise _refused_body(f"has more than {_MOST_MARKS} values")
        try:
            value = from_json(body, allow_inf_nan=False)
        except ValueError:
            raise Problem(422, "body: is not valid JSON") from None
        if self._shape is not None and len(body) > _SHORT_BYTES:
            _check_faults(value, self._shape)
        return value


def _check_faults(value: object, shape: type[BaseModel]) -> None:
    """Raises Problem (422) if there are too many faults to name: FastAPI would make objects and a sentence of each."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        if error.error_count() > _MOST_FAULTS:
            raise _refused_body(f"has {error.error_count()} faults") from None


def _refused_body(reason: str) -> Problem:
    return Problem(422, f"body: {reason}", extras={"errors": [{"field": "body", "message": reason}]})


class JsonRoute(APIRoute):
    """A route whose body is parsed strictly and safely: FastAPI's own answers 400, or worse, to some broken JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        given = self.body_field.field_info.annotation if self.body_field else None
        shape = given if isinstance(given, type) and issubclass(given, BaseModel) else None

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request, shape))

        return handle_json


async def _until_answered() -> AsyncIterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Held = Annotated[ExitStack, Depends(_until_answered)]
"""Type of a route's parameter: what it holds is held until the request fails or its whole answer is sent."""
