"""Who calls: found for each request before any route sees it, by what `EVERTURN_AUTH` says.

    async def get_turn(turn_id: PathId, caller: CallerOf) -> Turn: ...

A service that shares a token with its sidecar (APP_API_TOKEN) knows it by that; what comes that way may see all.
"""

import hmac
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from everturn.contracts.fields import id_fault
from everturn.errors import TerminalError, TransientError
from everturn.settings import Settings
from everturn.web.problems import Problem, ProblemResponse, invalid, problem_of
from everturn.web.requests import RequestMiddleware, header_text

APP_TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - the name of a header
PROXY_TOKEN_HEADER = "x-everturn-proxy-token"  # noqa: S105
_CALLER = "everturn.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """`user_id` is None for a caller that may act for every user: an operator, or anybody if nobody signs in."""

    user_id: str | None = None
    operator: bool = False

    def may_see(self, user_id: str) -> bool:
        """Whether what belongs to `user_id` is shown to this caller."""
        return self.user_id is None or self.user_id == user_id

    def check_operator(self) -> None:
        """Raises TerminalError (kind `forbidden`) for a user: what touches every user is not for one of them."""
        if self.user_id is not None:
            raise TerminalError("only an operator may do this", kind="forbidden")

    def acts_for(self, named: str | None, field: str = "body.user_id") -> str:
        """The user of a request that names `named` in `field`.

        Raises TerminalError (kind `forbidden`) if that is another user, Problem (422) if it must name one.
        """
        if named is None:
            if self.user_id is None:
                raise invalid((field, "field required"))
            return self.user_id
        if not self.may_see(named):
            raise TerminalError("user_id must be the signed-in user, or be left out", kind="forbidden")
        return named


ANYBODY = Caller()
OPERATOR = Caller(operator=True)
Identify = Callable[[Headers], Awaitable[Caller]]
"""Who sent a request with these headers. Raises Problem (401) if that cannot be said, TransientError if not now."""


async def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of a request, as a FastAPI dependency."""
    caller: Caller = connection.scope[_CALLER]
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]


async def anybody(_: Headers) -> Caller:
    """Nobody signs in."""
    return ANYBODY


def identify_by(settings: Settings) -> Identify:
    """How callers are found out with these settings. Raises SettingError if the file of keys cannot be used."""
    match settings.auth:
        case "none":
            identify = anybody
        case "header":
            assert settings.proxy_token is not None
            identify = partial(_named_by_proxy, settings.user_header, settings.proxy_token)
        case "jwt":
            from everturn.web.tokens import TokenReader  # noqa: PLC0415 - needs cryptography, which takes long to import

            identify = partial(_named_by_token, TokenReader.create(settings).user_of)
    return identify if settings.operator_token is None else partial(_or_operator, settings.operator_token, identify)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """`open_paths` need no caller, `sidecar_paths` need `app_token`, as everything does if the service `is_closed`.

    Dapr's sidecar sends it in `dapr-api-token` (https://docs.dapr.io/operations/security/app-api-token/).
    """

    open_paths: Collection[str]
    sidecar_paths: Collection[str] = ()
    app_token: SecretStr | None = None
    is_closed: bool = False


class SignIn(RequestMiddleware):
    """Every request gets its caller, or 401."""

    def __init__(self, app: ASGIApp, identify: Identify, rules: AccessRules) -> None:
        super().__init__(app, rules.open_paths)
        self._identify = identify
        self._rules = rules

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        try:
            scope[_CALLER] = await self._caller(scope["path"], Headers(scope=scope))
        except (Problem, TransientError) as error:
            answer = ProblemResponse(problem_of(error))
        await answer(scope, receive, send)

    async def _caller(self, path: str, headers: Headers) -> Caller:
        rules = self._rules
        if rules.app_token is not None:
            if is_secret(headers.get(APP_TOKEN_HEADER), rules.app_token):
                return OPERATOR
            if path in rules.sidecar_paths:
                raise _unknown_sidecar()
        caller = await self._identify(headers)
        if rules.is_closed and caller == ANYBODY:
            raise _unknown_sidecar()
        return caller


def is_secret(given: str | None, secret: SecretStr) -> bool:
    """Whether `given` is `secret`; how long that takes says nothing of it."""
    return given is not None and hmac.compare_digest(given.encode("latin-1"), secret.get_secret_value().encode())


def unknown_caller(detail: str, *, challenge: str = "Bearer") -> Problem:
    """A 401 that says what to send (RFC 9110 section 11.6.1)."""
    return Problem(401, detail, headers={"www-authenticate": challenge})


def bearer_of(headers: Headers) -> str | None:
    """The Bearer token of a request (RFC 6750 section 2.1). Raises Problem (401) if there are several credentials."""
    scheme, _, token = (_only(headers, "authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _unknown_sidecar() -> Problem:
    return unknown_caller(f"The header {APP_TOKEN_HEADER} is missing or wrong.", challenge=APP_TOKEN_HEADER)


async def _or_operator(token: SecretStr, identify: Identify, headers: Headers) -> Caller:
    return OPERATOR if is_secret(bearer_of(headers), token) else await identify(headers)


async def _named_by_proxy(header: str, token: SecretStr, headers: Headers) -> Caller:
    """The proxy removes `header` from what clients send, and only the proxy has `token`."""
    if not is_secret(_only(headers, PROXY_TOKEN_HEADER), token):
        raise unknown_caller("Nobody is signed in: call through the proxy in front of this service.")
    return Caller(_user_id(header_text(_only(headers, header) or ""), f"the header {header}"))


async def _named_by_token(user_of: Callable[[str], Awaitable[str]], headers: Headers) -> Caller:
    token = bearer_of(headers)
    if token is None:
        raise unknown_caller("Nobody is signed in: send Authorization: Bearer with a token.")
    try:
        user_id = await user_of(token)
    except TerminalError as error:
        raise unknown_caller(
            f"Nobody is signed in: {error.message}.", challenge='Bearer error="invalid_token"'
        ) from None
    return Caller(_user_id(user_id, "the user in the token"))


def _user_id(value: str, what: str) -> str:
    if fault := id_fault(value):
        raise unknown_caller(f"Nobody is signed in: {what} {fault}.")
    return value


def _only(headers: Headers, name: str) -> str | None:
    """The header `name`. Sent twice, one of the two may be the client's and not the proxy's: 401."""
    values = headers.getlist(name)
    if len(values) > 1:
        raise unknown_caller(f"The header {name} was sent more than once.")
    return values[0] if values else None
