"""What an app subscribes to: what it says itself, and what subscription files say of it.

https://docs.dapr.io/developing-applications/building-blocks/pubsub/subscription-methods/
"""

import json
import logging
from typing import Any

from everturn.errors import TransientError
from everturn.runtime.channels import AppChannel
from everturn.runtime.components import Components, Subscription
from everturn.sidecar.wire import Request

log = logging.getLogger(__name__)


async def find_subscriptions(channel: AppChannel, components: Components) -> list[Subscription]:
    """The subscriptions of one app, at most one a topic; where both speak of a topic, the file counts.

    Raises TransientError where the app cannot say yet: not reached, or a 5xx.
    """
    declared = [item for item in components.subscriptions if item.is_for(channel.app_id)]
    found: dict[tuple[str, str], Subscription] = {}
    # Of several for one topic Dapr takes the last that the app told, else the first that is declared
    # (pkg/runtime/compstore/subscriptions.go of 1.18.0).
    for item in [*reversed(declared), *await _ask(channel)]:
        if components.find("pubsub.", item.pubsub, channel.app_id) is None:
            log.warning("subscription_without_pubsub", extra={"app_id": channel.app_id, "pubsub": item.pubsub})
            continue
        found[item.pubsub, item.topic] = item
    return list(found.values())


async def _ask(channel: AppChannel) -> list[Subscription]:
    response = await channel.send(Request("GET", "/dapr/subscribe"))
    if response.status >= 500:
        raise TransientError(f"app {channel.app_id!r} answered {response.status} to GET /dapr/subscribe")
    if response.status != 200 or not response.body:
        return []
    try:
        items = json.loads(response.body)
    except ValueError:
        items = None
    if items is None:
        log.warning("subscriptions_unreadable", extra={"app_id": channel.app_id})
        return []
    found = [_subscription(item) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [item for item in found if item is not None]


def _subscription(item: dict[str, Any]) -> Subscription | None:
    routes = item.get("routes")
    route = routes.get("default") if isinstance(routes, dict) else item.get("route")
    pubsub, topic, dead_letters = item.get("pubsubname"), item.get("topic"), item.get("deadLetterTopic")
    if not (isinstance(pubsub, str) and isinstance(topic, str) and isinstance(route, str)):
        log.warning("subscription_incomplete", extra={"pubsub": str(pubsub), "topic": str(topic)})
        return None
    return Subscription(pubsub, topic, route, dead_letters if isinstance(dead_letters, str) and dead_letters else None)
