"""Dapr's HTTP API for one app: the routing table. Protocol only; every decision is made behind it.

https://docs.dapr.io/reference/api/
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from everturn.runtime import http_handlers, http_state, http_workflows
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.http_call import AppView, BuildingBlocks, Call, json_response
from everturn.runtime.invoke import invoke_app
from everturn.runtime.task_hub import TaskHub
from everturn.sidecar.wire import Request, Response

_Handler = Callable[[AppView, Call], Awaitable[Response]]
_READ, _DELETE, _ANY = frozenset({"GET"}), frozenset({"DELETE"}), None
_POST, _WRITE = frozenset({"POST"}), frozenset({"POST", "PUT"})

# Methods, pattern below the version, handler; the first that fits counts. `{x}` is one segment, `{x*}` the rest.
_ROUTES: tuple[tuple[frozenset[str] | None, str, _Handler], ...] = (
    (_READ, "healthz", http_handlers.get_health),
    (_READ, "healthz/outbound", http_handlers.get_outbound_health),
    (_READ, "metadata", http_handlers.get_metadata),
    (frozenset({"PUT"}), "metadata/{key}", http_handlers.put_metadata),
    (_WRITE, "state/{store}", http_state.save_state),
    (_WRITE, "state/{store}/bulk", http_state.get_bulk_state),
    (_WRITE, "state/{store}/transaction", http_state.transact_state),
    (_READ, "state/{store}/{key}", http_state.get_state),
    (_DELETE, "state/{store}/{key}", http_state.delete_state),
    (_WRITE, "publish/{pubsub}/{topic*}", http_handlers.publish),
    (_ANY, "invoke/{app}/method/{path*}", http_handlers.invoke),
    (_READ, "workflows/{component}/{instance}", http_workflows.get_workflow),
    (_POST, "workflows/{component}/{workflow}/start", http_workflows.start_workflow),
    (_POST, "workflows/{component}/{instance}/pause", http_workflows.pause_workflow),
    (_POST, "workflows/{component}/{instance}/resume", http_workflows.resume_workflow),
    (_POST, "workflows/{component}/{instance}/terminate", http_workflows.terminate_workflow),
    (_POST, "workflows/{component}/{instance}/purge", http_workflows.purge_workflow),
    (_POST, "workflows/{component}/{instance}/raiseEvent/{event}", http_workflows.raise_event),
    (_READ, "secrets/{store}/bulk", http_handlers.get_bulk_secrets),
    (_READ, "secrets/{store}/{key}", http_handlers.get_secret),
)
_Row = tuple[frozenset[str] | None, int | None, re.Pattern[str], _Handler]
_METADATA_PREFIX = "metadata."
_VERSION = "/v1.0/"
# Workflows are older than their version 1.0, and still answer to what they were called then.
_WORKFLOWS_BEFORE = re.compile(r"\A/v1\.0-(?:alpha1|beta1)/(?=workflows/)")


class HttpFront:
    """Answers one app's requests to its sidecar. `api_token`: what a caller must show (DAPR_API_TOKEN).

    `task_hub`: the app's, None where no workflows are run.
    """

    def __init__(
        self, app_id: str, blocks: BuildingBlocks, *, api_token: str | None = None, task_hub: TaskHub | None = None
    ) -> None:
        self.app_id = app_id
        self.api_token = api_token
        self.app = AppView(app_id, blocks, task_hub)

    async def handle(self, request: Request) -> Response:
        """The response to `request`; an error of the API is one too, in Dapr's JSON. Without the token it is 401."""
        if self.api_token is not None and not _may_call(request, self.api_token):
            return _error(DaprError(401, "ERR_PERMISSION_DENIED", "invalid api token"))
        return await self.handle_trusted(request)

    async def handle_trusted(self, request: Request) -> Response:
        """As `handle`, for a caller that is known: the app in this process."""
        path, _, query = request.target.partition("?")
        try:
            if "dapr-app-id" in request.headers:
                app_id = request.headers["dapr-app-id"]
                return await invoke_app(self.app.blocks, self.app.app_id, app_id, request)
            handler, parts = _find_route(request.method, path)
            return await handler(self.app, Call(request, parts, _metadata(query)))
        except DaprError as error:
            return _error(error)


def _may_call(request: Request, token: str) -> bool:
    """Health needs no token, so that a probe can ask for it."""
    if request.target.startswith("/v1.0/healthz"):
        return True
    return hmac.compare_digest(request.headers.get("dapr-api-token", "").encode(), token.encode())


def _error(error: DaprError) -> Response:
    return json_response({"errorCode": error.code, "message": error.message}, error.status)


def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.*)", template)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern) + r"\Z", re.DOTALL)


def _by_block() -> dict[str, list[_Row]]:
    """The table by first segment, so that only a few patterns are tried; each with its number of slashes, if fixed."""
    table: dict[str, list[_Row]] = {}
    for methods, template, handler in _ROUTES:
        slashes = None if "*}" in template else template.count("/")
        table.setdefault(template.partition("/")[0], []).append((methods, slashes, _pattern(template), handler))
    return table


_ROUTES_BY_BLOCK = _by_block()


def _find_route(method: str, path: str) -> tuple[_Handler, Mapping[str, str]]:
    """Raises DaprError (404) for an unknown path, and for a known one with another method, as on Dapr."""
    below = path.removeprefix(_VERSION)
    if below == path:
        below = _WORKFLOWS_BEFORE.sub("", path)
    if below != path:
        count = below.count("/")
        for methods, slashes, pattern, handler in _ROUTES_BY_BLOCK.get(below.partition("/")[0], ()):
            fits = slashes in (None, count) and (methods is None or method in methods)
            if fits and (found := pattern.match(below)):
                return handler, found.groupdict()
    no_app = "failed getting app id either from the URL path or the header dapr-app-id"
    raise DaprError(404, "ERR_DIRECT_INVOKE", no_app)


def _metadata(query: str) -> dict[str, str]:
    """The `metadata.*` parameters of a query, without that prefix."""
    if not query:
        return {}
    return {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name.startswith(_METADATA_PREFIX)
    }
