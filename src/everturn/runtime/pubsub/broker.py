"""The broker: takes messages, puts them into envelopes and keeps them, finds out which apps subscribe, and has the
messages delivered to them.

https://docs.dapr.io/developing-applications/building-blocks/pubsub/subscription-methods/ . The envelope is CloudEvents
1.0 in JSON, with Dapr's extensions (…/pubsub/pubsub-cloudevents/ and components-contrib pubsub/envelope.go). What was
sent as JSON is taken over as it is, not decoded.
"""

import asyncio
import base64
import itertools
import json
import logging
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from everturn.dapr.wire import JsonError, Request, decode
from everturn.errors import TerminalError, TransientError
from everturn.runtime.clock import Clock, rfc3339, sleep
from everturn.runtime.database.database import Database
from everturn.runtime.errors import DaprError
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.pubsub.deliveries import (
    CLOUD_EVENT_JSON,
    DeliveryContext,
    DeliveryCounts,
    PendingMessage,
    TopicDispatcher,
    TopicStore,
)
from everturn.runtime.resources.components import Components, Subscription, TopicName
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY

log = logging.getLogger(__name__)

_DEFAULT_TYPE = "com.dapr.event.sent"
# W3C trace context, version 00 (https://www.w3.org/TR/trace-context/#traceparent-header).
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Publication:
    """A request to publish `body`. `app_id`: of the publisher; `metadata`: of the query, without its prefix."""

    app_id: str
    pubsub: str
    topic: str
    body: bytes
    headers: Mapping[str, str]
    metadata: Mapping[str, str]


def envelope(publication: Publication, now: float) -> bytes:
    """The CloudEvent that subscribers get. Raises JsonError if the body should be one and is no JSON object."""
    content_type = publication.headers.get("content-type", "")
    event: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "specversion": "1.0",
        "type": _DEFAULT_TYPE,
        "source": publication.app_id,
        "time": rfc3339(now, "milliseconds"),
    }
    if publication.metadata.get("rawPayload") == "true":
        event |= {"datacontenttype": "application/octet-stream", "data_base64": _base64(publication.body)}
    elif _media_type(content_type) == CLOUD_EVENT_JSON:
        event |= _given(publication.body)
    else:
        event |= _data(publication.body, content_type or "text/plain")
    event |= {
        name.removeprefix("cloudevent."): value
        for name, value in publication.metadata.items()
        if name.startswith("cloudevent.")
    }
    return msgspec.json.encode(event | _delivery_fields(publication))


def _given(body: bytes) -> dict[str, Raw]:
    # A null attribute is an absent one; null data is data (CloudEvents 1.0 JSON format, sections 2.2 and 3.1).
    fields = decode(body, dict[str, Raw])
    return {name: raw for name, raw in fields.items() if bytes(raw) != b"null" or name == "data"}


def _data(body: bytes, content_type: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"datacontenttype": content_type}
    match _media_type(content_type):
        case "application/json":
            return fields | {"data": _json_or_text(body)}
        case "application/octet-stream":
            return fields | {"data_base64": _base64(body)}
        case _:
            return fields | {"data": _text(body)}


def _delivery_fields(publication: Publication) -> dict[str, str]:
    given = publication.headers.get("traceparent", "")
    trace = given if _TRACEPARENT.match(given) else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    return {
        "topic": publication.topic,
        "pubsubname": publication.pubsub,
        "traceid": trace,
        "traceparent": trace,
        "tracestate": publication.headers.get("tracestate", ""),
    }


def _json_or_text(body: bytes) -> Raw | str:
    try:
        return decode(body, Raw)
    except JsonError:
        return _text(body)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


# Reads what is subscribed to in other runtimes.
Look = Callable[[], Awaitable[None]]


class Broker:
    """Every `pubsub.*` component, in the runtime's database.

    A message is on disk before `publish` returns and stays there until each subscriber has taken it, over any crash.
    Nothing is delivered before `start`.
    """

    def __init__(
        self, database: Database, clock: Clock, components: Components, before_publish: Look | None = None
    ) -> None:
        self.counts = DeliveryCounts()
        self.store = TopicStore(database, clock)
        self._clock = clock
        self._components = components
        self._context = DeliveryContext(self.store, clock, self.counts, self._announce)
        self._channels: list[AppChannel] = []
        self._dispatchers: list[TopicDispatcher] = []
        self._discoveries: dict[str, asyncio.Task[None]] = {}
        self._before_publish = before_publish
        self.started = False

    async def publish(self, publication: Publication, *, durable: bool = True) -> None:
        """Keep and deliver a message. Raises DaprError: 404 without such a pub/sub, 500 if it was not kept.

        Not `durable`: it may return before the message is on disk, which is when it is delivered.
        """
        pubsub, topic = publication.pubsub, publication.topic
        if self._components.find("pubsub.", pubsub, publication.app_id) is None:
            raise DaprError(404, "ERR_PUBSUB_NOT_FOUND", f"pubsub {pubsub} is not found")
        if not topic:
            raise DaprError(404, "ERR_TOPIC_EMPTY", f"topic is empty in pubsub {pubsub}")
        what = f"error when publishing to topic {topic} in pubsub {pubsub}"
        try:
            body = envelope(publication, self._clock.now())
            if self._before_publish is not None:
                await self._before_publish()
            name = pubsub, topic
            await self.store.publish(name, body, partial(self._announce, name), durable=durable)
        except JsonError as error:
            raise DaprError(500, "ERR_PUBSUB_CLOUD_EVENTS_SER", f"cannot create cloudevent: {error}") from error
        except TransientError as error:
            raise DaprError(500, "ERR_PUBSUB_PUBLISH_MESSAGE", f"{what}: {error.message}") from error

    async def accept_forwarded(self, app_id: str, topic: TopicName, body: bytes) -> bool:
        """Keep, and deliver to the app alone, a message that another runtime had for it; False if it takes none.

        Raises TransientError if the disk refuses.
        """
        message_id = await self.store.publish_to(app_id, topic, body)
        if message_id is None:
            return False
        for dispatcher in self._dispatchers:
            if f"{dispatcher.app_id}||".startswith(f"{app_id}||"):
                dispatcher.offer(topic, PendingMessage(message_id, body))
        return True

    def add_app(self, channel: AppChannel) -> None:
        """Deliver to this app, from `start` on, what it subscribes to."""
        self._channels.append(channel)
        if self.started:
            self._discover(channel)

    def start(self) -> None:
        """Ask each app for its subscriptions, and begin to deliver to those that have answered."""
        self.started = True
        for channel in self._channels:
            self._discover(channel)

    async def stop_app(self, app_id: str, limit_s: float) -> None:
        """Begin no further delivery to this app, let running ones finish within `limit_s`."""
        discovery = self._discoveries.pop(app_id, None)
        if discovery is not None:
            discovery.cancel()
            await asyncio.gather(discovery, return_exceptions=True)
        leaving = [dispatcher for dispatcher in self._dispatchers if dispatcher.app_id == app_id]
        self._dispatchers = [dispatcher for dispatcher in self._dispatchers if dispatcher.app_id != app_id]
        self._channels = [channel for channel in self._channels if channel.app_id != app_id]
        await asyncio.gather(*(dispatcher.stop(limit_s) for dispatcher in leaving))

    async def subscribed(self, app_id: str) -> None:
        """Returns when the app has said what it subscribes to."""
        await self._discoveries[app_id]

    async def stop(self, limit_s: float) -> None:
        """Begin no further delivery, let running ones finish within `limit_s`. The rest waits on disk."""
        self.started = False
        app_ids = {channel.app_id for channel in self._channels} | {item.app_id for item in self._dispatchers}
        await asyncio.gather(*(self.stop_app(app_id, limit_s) for app_id in app_ids))

    def app_is_back(self, app_id: str) -> None:
        """Try at once what waits because the app could not be reached."""
        for dispatcher in self._dispatchers:
            if dispatcher.app_id == app_id:
                dispatcher.release()

    def subscriptions_of(self, app_id: str) -> list[Subscription]:
        """What is delivered to the app."""
        return [dispatcher.subscription for dispatcher in self._dispatchers if dispatcher.app_id == app_id]

    def _announce(self, topic: TopicName, message: PendingMessage) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.offer(topic, message)

    def _discover(self, channel: AppChannel) -> None:
        self._discoveries[channel.app_id] = asyncio.get_running_loop().create_task(self._subscribe(channel))

    async def _subscribe(self, channel: AppChannel) -> None:
        for attempt in itertools.count(1):
            try:
                await self.set_subscriptions(channel, await _find_subscriptions(channel, self._components))
            except TransientError as error:
                log.info("subscriptions_not_known_yet", extra={"app_id": channel.app_id, "reason": error.message})
            except TerminalError as error:
                log.error("subscriptions_failed", extra={"app_id": channel.app_id, "reason": error.message})
                return
            except Exception:
                log.exception("subscriptions_failed", extra={"app_id": channel.app_id})
            else:
                return
            await sleep(self._clock, DEFAULT_DELIVERY_RETRY.delay_s(attempt) or 0.0)

    async def set_subscriptions(
        self, channel: AppChannel, wanted: Sequence[Subscription], *, unclaimed_only: bool = False
    ) -> None:
        """Make `wanted`, at most one a topic, all that is delivered over `channel` from now on.

        A new one begins with what there is of its topic; `unclaimed_only`: with what nobody else is to get.
        Raises TransientError if the disk refuses.
        """
        app_id = channel.app_id
        ids = await self.store.subscribe(app_id, [item.topic_name for item in wanted], unclaimed_only=unclaimed_only)
        leaving = [item for item in self._dispatchers if item.app_id == app_id and item.subscription not in wanted]
        self._dispatchers = [dispatcher for dispatcher in self._dispatchers if dispatcher not in leaving]
        kept = self.subscriptions_of(app_id)
        await asyncio.gather(*(dispatcher.stop(0) for dispatcher in leaving))
        for item in wanted:
            if item in kept:
                continue
            policy = self._components.delivery_retry(item.pubsub, app_id.partition("||")[0])
            dispatcher = TopicDispatcher(ids[item.topic_name], item, channel, policy, self._context)
            self._dispatchers.append(dispatcher)
            dispatcher.release()


async def _find_subscriptions(channel: AppChannel, components: Components) -> list[Subscription]:
    """The subscriptions of one app, at most one a topic; if both name a topic, the file counts.

    Raises TransientError if the app cannot say yet: not reached, or a 5xx.
    """
    declared = [item for item in components.subscriptions if item.is_for(channel.app_id)]
    found: dict[TopicName, Subscription] = {}
    # Of several for one topic Dapr takes the last that the app gave, else the first that is declared
    # (pkg/runtime/compstore/subscriptions.go of 1.18.0).
    for item in [*reversed(declared), *await _ask(channel)]:
        if components.find("pubsub.", item.pubsub, channel.app_id) is None:
            log.warning("subscription_without_pubsub", extra={"app_id": channel.app_id, "pubsub": item.pubsub})
            continue
        found[item.topic_name] = item
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
