"""A call of Dapr's HTTP API, and the handlers of publish, invocation, secrets, health and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from everturn.dapr.wire import JsonError, Request, Response, decode
from everturn.runtime.building_blocks import DAPR_VERSION, AppView
from everturn.runtime.errors import DaprError, malformed
from everturn.runtime.pubsub.broker import Publication
from everturn.runtime.resources.components import Component, Subscription

T = TypeVar("T")

NO_CONTENT = Response(204)
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request, with the parts of its path that the route names (percent-encoded) and its query's `metadata.*`."""

    request: Request
    parts: Mapping[str, str]
    metadata: Mapping[str, str]

    def part(self, name: str) -> str:
        """Decoded. Raises DaprError (400) if it is not UTF-8."""
        try:
            return unquote(self.parts[name], errors="strict")
        except UnicodeDecodeError as error:
            raise malformed(f"{name} is not UTF-8") from error


def read_body(call: Call, shape: type[T]) -> T:
    """The JSON body as a `shape` of msgspec. Raises DaprError (400)."""
    try:
        return decode(call.request.body, shape)
    except JsonError as error:
        raise malformed(f"failed deserializing HTTP body: {error}") from error


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, JSON, msgspec.json.encode(value))


def problem(status: int, detail: str, **more: str) -> Response:
    """What this server refuses where Dapr would not (RFC 9457)."""
    details = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(status, {"content-type": "application/problem+json"}, msgspec.json.encode({**details, **more}))


async def publish(app: AppView, call: Call) -> Response:
    """204 once the message is on disk."""
    request = call.request
    publication = Publication(
        app.app_id, call.part("pubsub"), call.part("topic"), request.body, request.headers, call.metadata
    )
    await app.blocks.broker.publish(publication)
    return NO_CONTENT


async def invoke(app: AppView, call: Call) -> Response:
    """The other app's own response."""
    request = call.request
    _, mark, query = request.target.partition("?")
    onward = Request(request.method, f"/{call.parts['path']}{mark}{query}", request.headers, request.body)
    return await app.blocks.invoker.invoke(app.app_id, call.part("app"), onward)


async def get_secret(app: AppView, call: Call) -> Response:
    return json_response(app.secrets.get(call.part("store"), call.part("key")))


async def get_bulk_secrets(app: AppView, call: Call) -> Response:
    return json_response(app.secrets.get_all(call.part("store")))


async def get_health(app: AppView, _call: Call) -> Response:
    """204 once the runtime has started and the app listens."""
    if not (app.blocks.broker.started and app.is_up):
        raise DaprError(500, "ERR_HEALTH_NOT_READY", "dapr is not ready")
    return NO_CONTENT


async def get_outbound_health(_app: AppView, _call: Call) -> Response:
    """204 as soon as the building blocks can be used, whatever the app does."""
    return NO_CONTENT


async def get_metadata(app: AppView, _call: Call) -> Response:
    workers = app.connected_workers
    return json_response(
        {
            "id": app.app_id,
            "runtimeVersion": DAPR_VERSION,
            "components": [_shown_component(item) for item in app.blocks.components.of_app(app.app_id)],
            "subscriptions": [_shown_subscription(item) for item in app.blocks.broker.subscriptions_of(app.app_id)],
            "extended": {**app.extended, "daprRuntimeVersion": DAPR_VERSION},
            **({"workflows": {"connectedWorkers": workers()}} if workers is not None else {}),
        }
    )


async def put_metadata(app: AppView, call: Call) -> Response:
    """204; the body is the value."""
    app.extended[call.part("key")] = call.request.body.decode("utf-8", "replace")
    return NO_CONTENT


def _shown_component(component: Component) -> dict[str, object]:
    return {"name": component.name, "type": component.type, "version": component.version, "capabilities": []}


def _shown_subscription(subscription: Subscription) -> dict[str, object]:
    return {
        "pubsubname": subscription.pubsub,
        "topic": subscription.topic,
        "rules": [{"path": subscription.route}],
        "deadLetterTopic": subscription.dead_letter_topic or "",
        "type": "DECLARATIVE" if subscription.is_declared else "PROGRAMMATIC",
    }
