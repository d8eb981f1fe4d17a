"""Dapr's HTTP API for publish, invocation, secrets, health and metadata."""

from everturn.runtime.cloudevents import Publication
from everturn.runtime.components import Component, Subscription
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.http_call import NO_CONTENT, AppView, Call, json_response
from everturn.runtime.invoke import invoke_app
from everturn.sidecar.wire import Request, Response

# What this runtime is compatible with.
DAPR_VERSION = "1.18.0"


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
    return await invoke_app(app.blocks, app.app_id, call.part("app"), onward)


async def get_secret(app: AppView, call: Call) -> Response:
    return json_response(find_secret(app, call.part("store"), call.part("key")))


def find_secret(app: AppView, store: str, name: str) -> dict[str, str]:
    """Raises DaprError where there is no such store or secret, or the app may not have it (403)."""
    opened = app.secret_store(store)
    if not app.blocks.configuration.allows_secret(store, name):
        message = f'access denied by policy to get "{name}" from "{store}"'
        raise DaprError(403, "ERR_PERMISSION_DENIED", message)
    secret = opened.get(name)
    if secret is None:
        what = f"failed getting secret with key {name} from secret store {store}"
        raise DaprError(500, "ERR_SECRET_GET", f"{what}: secret {name} not found")
    return secret


def find_secrets(app: AppView, store: str) -> dict[str, dict[str, str]]:
    """All that the app may have. Raises DaprError where there is no such store."""
    configuration = app.blocks.configuration
    found = app.secret_store(store).get_all()
    return {name: secret for name, secret in found.items() if configuration.allows_secret(store, name)}


async def get_bulk_secrets(app: AppView, call: Call) -> Response:
    return json_response(find_secrets(app, call.part("store")))


async def get_health(app: AppView, _call: Call) -> Response:
    """204 once the runtime has started."""
    if not app.blocks.broker.started:
        raise DaprError(500, "ERR_HEALTH_NOT_READY", "dapr is not ready")
    return NO_CONTENT


async def get_outbound_health(_app: AppView, _call: Call) -> Response:
    """204 as soon as the building blocks can be used, whatever the app does."""
    return NO_CONTENT


async def get_metadata(app: AppView, _call: Call) -> Response:
    components = [item for item in app.blocks.components.components.values() if item.is_for(app.app_id)]
    workers = app.own.connected_workers
    return json_response(
        {
            "id": app.app_id,
            "runtimeVersion": DAPR_VERSION,
            "components": [_shown_component(item) for item in components],
            "subscriptions": [_shown_subscription(item) for item in app.blocks.broker.subscriptions_of(app.app_id)],
            "extended": {**app.own.extended, "daprRuntimeVersion": DAPR_VERSION},
            **({"workflows": {"connectedWorkers": workers()}} if workers is not None else {}),
        }
    )


async def put_metadata(app: AppView, call: Call) -> Response:
    """204; the body is the value."""
    app.own.extended[call.part("key")] = call.request.body.decode("utf-8", "replace")
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
