"""Dapr's HTTP API for one app: the table of its routes, and what answers by it.

https://docs.dapr.io/reference/api/
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from everturn.dapr.origins import AllowedPages
from everturn.dapr.wire import Request, Response
from everturn.runtime.building_blocks import AppView
from everturn.runtime.errors import DaprError
from everturn.runtime.http import handlers, state_routes, workflow_routes
from everturn.runtime.http.handlers import Call, json_response, problem

_Handler = Callable[[AppView, Call], Awaitable[Response]]
_READ, _DELETE, _ANY = frozenset({"GET"}), frozenset({"DELETE"}), None
_POST, _WRITE = frozenset({"POST"}), frozenset({"POST", "PUT"})

# Methods, pattern below the version, handler; the first that fits counts. `{x}` is one segment, `{x*}` the rest.
_ROUTES: tuple[tuple[frozenset[str] | None, str, _Handler], ...] = (
    (_READ, "healthz", handlers.get_health),
    (_READ, "healthz/outbound", handlers.get_outbound_health),
    (_READ, "metadata", handlers.get_metadata),
    (frozenset({"PUT"}), "metadata/{key}", handlers.put_metadata),
    (_WRITE, "state/{store}", state_routes.save_state),
    (_WRITE, "state/{store}/bulk", state_routes.get_bulk_state),
    (_WRITE, "state/{store}/transaction", state_routes.transact_state),
    (_READ, "state/{store}/{key}", state_routes.get_state),
    (_DELETE, "state/{store}/{key}", state_routes.delete_state),
    (_WRITE, "publish/{pubsub}/{topic*}", handlers.publish),
    (_ANY, "invoke/{app}/method/{path*}", handlers.invoke),
    (_READ, "workflows/{component}/{instance}", workflow_routes.get_workflow),
    (_POST, "workflows/{component}/{workflow}/start", workflow_routes.start_workflow),
    (_POST, "workflows/{component}/{instance}/pause", workflow_routes.pause_workflow),
    (_POST, "workflows/{component}/{instance}/resume", workflow_routes.resume_workflow),
    (_POST, "workflows/{component}/{instance}/terminate", workflow_routes.terminate_workflow),
    (_POST, "workflows/{component}/{instance}/purge", workflow_routes.purge_workflow),
    (_POST, "workflows/{component}/{instance}/raiseEvent/{event}", workflow_routes.raise_event),
    (_READ, "secrets/{store}/bulk", handlers.get_bulk_secrets),
    (_READ, "secrets/{store}/{key}", handlers.get_secret),
)
_OPEN_TARGETS = frozenset({"/v1.0/healthz", "/v1.0/healthz/outbound"})
_NO_PAGES = AllowedPages()
_METADATA_PREFIX = "metadata."
# Workflows are older than their version 1.0, and still answer to what they were called then.
_VERSION = re.compile(r"\A/v1\.0(?:/|-(?:alpha1|beta1)/(?=workflows/))")


class DaprHttpApi:
    """Answers the requests of `app` to its sidecar: with `handle` those from a socket, as a `Transport` the app's own.

    `api_token`: what a caller on a socket must show (DAPR_API_TOKEN). Of web pages only `pages` may call.
    """

    def __init__(self, app: AppView, *, api_token: str | None = None, pages: AllowedPages = _NO_PAGES) -> None:
        self._app = app
        self._api_token = api_token
        self._pages = pages

    async def handle(self, request: Request) -> Response:
        """The response to `request`; an error of the API is one too, in Dapr's JSON.

        Health apart, it is 403 for a foreign web page, and 401 without the token.
        """
        if not _is_health(request):
            if refusal := self._pages.refusal(request.method, request.headers):
                return problem(403, refusal, errorCode="ERR_PERMISSION_DENIED", message=refusal)
            if self._api_token is not None and not _has_token(request, self._api_token):
                return _error(DaprError(401, "ERR_PERMISSION_DENIED", "invalid api token"))
        return await self.send(request)

    async def send(self, request: Request) -> Response:
        """As `handle`, for a caller that is known: the app in this process."""
        path, _, query = request.target.partition("?")
        try:
            if "dapr-app-id" in request.headers:
                app_id = request.headers["dapr-app-id"]
                return await self._app.blocks.invoker.invoke(self._app.app_id, app_id, request)
            handler, parts = _find_route(request.method, path)
            return await handler(self._app, Call(request, parts, _metadata(query)))
        except DaprError as error:
            return _error(error)

    async def close(self) -> None:
        """Nothing to close: it belongs to its runtime."""


def _is_health(request: Request) -> bool:
    """What a probe may ask for in any case: these two paths as they are, and not of another app."""
    return request.target in _OPEN_TARGETS and "dapr-app-id" not in request.headers


def _has_token(request: Request, token: str) -> bool:
    return hmac.compare_digest(request.headers.get("dapr-api-token", "").encode(), token.encode())


def _error(error: DaprError) -> Response:
    return json_response({"errorCode": error.code, "message": error.message}, error.status)


def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.*)", template)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern) + r"\Z", re.DOTALL)


_PATTERNS = [(methods, _pattern(template), handler) for methods, template, handler in _ROUTES]


def _find_route(method: str, path: str) -> tuple[_Handler, Mapping[str, str]]:
    """Raises DaprError (404) for an unknown path, and for a known one with another method, as on Dapr."""
    below, is_known = _VERSION.subn("", path)
    if is_known:
        for methods, pattern, handler in _PATTERNS:
            if (methods is None or method in methods) and (found := pattern.match(below)):
                return handler, found.groupdict()
    no_app = "failed getting app id either from the URL path or the header dapr-app-id"
    raise DaprError(404, "ERR_DIRECT_INVOKE", no_app)


def _metadata(query: str) -> dict[str, str]:
    """The `metadata.*` parameters of a query, without that prefix."""
    return {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name.startswith(_METADATA_PREFIX)
    }
