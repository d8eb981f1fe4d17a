"""Service invocation: one app's request, carried to another (https://docs.dapr.io/reference/api/service_invocation_api/)."""

from collections.abc import Mapping

from everturn.errors import TransientError
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.http_call import BuildingBlocks
from everturn.runtime.method_path import onward_path
from everturn.sidecar.wire import Request, Response

# Of one connection only (RFC 9110 section 7.6.1), or between the caller and its sidecar.
_NOT_PASSED_ON = frozenset(
    {
        "connection",
        "content-length",
        "dapr-api-token",
        "dapr-app-id",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


async def invoke_app(blocks: BuildingBlocks, caller: str, app_id: str, request: Request) -> Response:
    """Send `request` (its target is the method's path and query) to `app_id`; its answer, whatever the status.

    What Resiliency files say of that app is applied.

    Raises DaprError (500 ERR_DIRECT_INVOKE) where there is no such app, its path cannot be handed on, or it gave no
    answer.
    """
    channel = blocks.channels.find(app_id)
    if channel is None:
        raise _failed(app_id, "failed to resolve address: no host found with the given ID")
    path, mark, query = request.target.partition("?")
    try:
        target = f"{onward_path(path)}{mark}{query}"
    except ValueError as error:
        raise _failed(app_id, str(error)) from error
    headers = {**_passed_on(request.headers), "dapr-caller-app-id": caller, "dapr-callee-app-id": app_id}
    onward = Request(request.method, target, headers, request.body)
    try:
        response = await blocks.policies.call(caller, app_id, path, lambda: channel.send(onward))
    except TransientError as error:
        raise _failed(app_id, error.message) from error
    return Response(response.status, _passed_on(response.headers), response.body)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _NOT_PASSED_ON}


def _failed(app_id: str, reason: str) -> DaprError:
    return DaprError(500, "ERR_DIRECT_INVOKE", f"failed to invoke, id: {app_id}, err: {reason}")
