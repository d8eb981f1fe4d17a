"""Topics over gRPC: CloudEvents as Dapr's messages carry them, and subscriptions on streams that an app opens."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import unquote

from dapr.proto.runtime.v1 import pubsub_pb2 as pb
from dapr.proto.runtime.v1.appcallback_pb2 import TopicEventRequest, TopicEventResponse
from google.protobuf.struct_pb2 import Struct

from everturn.dapr.wire import Request, Response
from everturn.errors import TransientError
from everturn.runtime.building_blocks import AppView
from everturn.runtime.errors import DaprError, malformed
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.pubsub.deliveries import TOPIC_HEADER
from everturn.runtime.resources.components import Subscription

# What has a field of its own in the message.
_OWN_FIELDS = frozenset(
    {"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64", "topic", "pubsubname"}
)


def topic_event(delivery: Request, path: str) -> TopicEventRequest:
    """The message of a delivery, whose body is a CloudEvent in JSON; `path` is the route in the app."""
    event: dict[str, Any] = json.loads(delivery.body)
    extensions = Struct()
    extensions.update({name: value for name, value in event.items() if name not in _OWN_FIELDS})
    return TopicEventRequest(
        id=str(event.get("id", "")),
        source=str(event.get("source", "")),
        type=str(event.get("type", "")),
        spec_version=str(event.get("specversion", "")),
        data_content_type=str(event.get("datacontenttype", "")),
        data=_data(event),
        topic=unquote(delivery.headers.get(TOPIC_HEADER, "")),
        pubsub_name=str(event.get("pubsubname", "")),
        path=path,
        extensions=extensions,
    )


def verdict_response(status: int) -> Response:
    """What an app's verdict would be over HTTP; a status that is unknown is RETRY."""
    statuses = TopicEventResponse.TopicEventResponseStatus
    verdict = statuses.Name(status) if status in statuses.values() else "RETRY"  # type: ignore[arg-type]
    return Response(200, {"content-type": "application/json"}, json.dumps({"status": verdict}).encode())


def _data(event: dict[str, Any]) -> bytes:
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    data = event.get("data")
    is_json = "json" in str(event.get("datacontenttype", "application/json"))
    if isinstance(data, str) and not is_json:
        return data.encode()
    return b"" if data is None else json.dumps(data, ensure_ascii=False).encode()


class _Stream:
    """Events to be sent, None after the last, and those without a verdict yet, the oldest first."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[pb.SubscribeTopicEventsResponseAlpha1 | None] = asyncio.Queue()
        self.waiting: list[tuple[str, asyncio.Future[int]]] = []

    async def give(self, request: Request) -> Response:
        event = topic_event(request, "")
        verdict: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting.append((event.id, verdict))
        self.events.put_nowait(pb.SubscribeTopicEventsResponseAlpha1(event_message=event))
        try:
            return verdict_response(await verdict)
        finally:
            self.waiting.remove((event.id, verdict))

    def settle(self, event_id: str, status: int) -> None:
        for waiting_id, verdict in self.waiting:
            if waiting_id == event_id and not verdict.done():
                verdict.set_result(status)
                return

    def end(self) -> None:
        for _, verdict in self.waiting:
            if not verdict.done():
                verdict.set_exception(TransientError("the subscription's stream ended", kind="unreachable"))


class StreamTransport:
    """A `Transport` to the streams that are open for one topic: each message is sent on one of them."""

    def __init__(self) -> None:
        self.streams: list[_Stream] = []

    async def send(self, request: Request) -> Response:
        if not self.streams:
            raise TransientError("no stream is open for this subscription", kind="unreachable")
        return await min(self.streams, key=lambda stream: len(stream.waiting)).give(request)

    async def close(self) -> None:
        """Nothing to close: a stream belongs to the app that opened it."""


class TopicStreams:
    """The streaming subscriptions of one app. A message waits for a stream that comes back, as for an app."""

    def __init__(self, app: AppView) -> None:
        self._app = app
        self._transports: dict[tuple[str, str], StreamTransport] = {}
        self._opening = asyncio.Lock()

    async def subscribe(
        self, requests: AsyncIterator[pb.SubscribeTopicEventsRequestAlpha1]
    ) -> AsyncGenerator[pb.SubscribeTopicEventsResponseAlpha1, None]:
        """Raises DaprError if the first message asks for what cannot be."""
        first = await anext(requests, None)
        if first is None or not first.HasField("initial_request"):
            raise malformed("the first message of a subscription must be its initial request")
        transport, subscriber_id = await self._transport(first.initial_request)
        stream = _Stream()
        yield pb.SubscribeTopicEventsResponseAlpha1(initial_response=pb.SubscribeTopicEventsResponseInitialAlpha1())
        reading = asyncio.ensure_future(_read(requests, stream))
        transport.streams.append(stream)
        self._app.blocks.broker.app_is_back(subscriber_id)
        try:
            while (event := await stream.events.get()) is not None and not reading.done():
                yield event
        finally:
            transport.streams.remove(stream)
            reading.cancel()
            stream.end()

    async def _transport(self, asked: pb.SubscribeTopicEventsRequestInitialAlpha1) -> tuple[StreamTransport, str]:
        pubsub, topic = asked.pubsub_name, asked.topic
        app_id, blocks = self._app.app_id, self._app.blocks
        if blocks.components.find("pubsub.", pubsub, app_id) is None:
            raise DaprError(404, "ERR_PUBSUB_NOT_FOUND", f"pubsub {pubsub} is not found")
        if not topic:
            raise malformed("topic is required")
        # Beside what the app has subscribed to otherwise: a subscriber of its own.
        subscriber_id = f"{app_id}||stream||{pubsub}||{topic}"
        async with self._opening:
            if (pubsub, topic) not in self._transports:
                transport = StreamTransport()
                wanted = Subscription(pubsub, topic, "/", asked.dead_letter_topic or None)
                try:
                    await blocks.broker.set_subscriptions(AppChannel(subscriber_id, transport), [wanted])
                except TransientError as error:
                    raise DaprError(500, "ERR_PUBSUB_SUBSCRIBE", f"cannot subscribe: {error.message}") from error
                self._transports[pubsub, topic] = transport
        return self._transports[pubsub, topic], subscriber_id


async def _read(requests: AsyncIterator[pb.SubscribeTopicEventsRequestAlpha1], stream: _Stream) -> None:
    try:
        async for request in requests:
            if request.HasField("event_processed"):
                stream.settle(request.event_processed.id, request.event_processed.status.status)
    finally:
        stream.events.put_nowait(None)
