"""The token by which a sidecar proves itself to its app (https://docs.dapr.io/operations/security/app-api-token/)."""

import hmac
from collections.abc import Collection

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from everturn.web.problems import Problem, problem_response

TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - the name of a header


class ApiToken:
    """Middleware: without `token` in `dapr-api-token` every path but the `open_paths` is 401, known or not."""

    def __init__(self, app: ASGIApp, token: SecretStr, open_paths: Collection[str]) -> None:
        self._app = app
        self._token = token.get_secret_value().encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._is_given(scope):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            401, f"The header {TOKEN_HEADER} is missing or wrong.", headers={"www-authenticate": TOKEN_HEADER}
        )
        await problem_response(problem)(scope, receive, send)

    def _is_given(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get(TOKEN_HEADER, "")
        return hmac.compare_digest(given.encode("latin-1"), self._token)
