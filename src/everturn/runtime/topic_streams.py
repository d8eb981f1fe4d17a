"""Streaming subscriptions: an app that takes messages on streams which it opens itself."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from dapr.proto.runtime.v1 import pubsub_pb2 as pb

from everturn.errors import TransientError
from everturn.runtime.channels import AppChannel
from everturn.runtime.components import Subscription
from everturn.runtime.dapr_errors import DaprError, malformed
from everturn.runtime.http_call import AppView
from everturn.runtime.topic_events import topic_event, verdict_response
from everturn.sidecar.wire import Request, Response


class _Stream:
    """Events that go out, and by id those of which nothing was said yet: the oldest first."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[pb.SubscribeTopicEventsResponseAlpha1] = asyncio.Queue()
        self.waiting: dict[str, list[asyncio.Future[int]]] = {}
        self.count = 0

    async def give(self, request: Request) -> Response:
        event = topic_event(request, "")
        verdict: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(event.id, []).append(verdict)
        self.count += 1
        self.events.put_nowait(pb.SubscribeTopicEventsResponseAlpha1(event_message=event))
        try:
            return verdict_response(await verdict)
        finally:
            self.count -= 1
            left = self.waiting[event.id]
            left.remove(verdict)
            if not left:
                del self.waiting[event.id]

    def settle(self, event_id: str, status: int) -> None:
        for verdict in self.waiting.get(event_id, ()):
            if not verdict.done():
                verdict.set_result(status)
                return

    def end(self) -> None:
        for verdicts in self.waiting.values():
            for verdict in verdicts:
                if not verdict.done():
                    verdict.set_exception(TransientError("the subscription's stream ended", kind="unreachable"))


class StreamTransport:
    """A `Transport` to whoever has a stream open for one topic: each message goes to one of them."""

    def __init__(self) -> None:
        self.streams: list[_Stream] = []

    async def send(self, request: Request) -> Response:
        if not self.streams:
            raise TransientError("no stream is open for this subscription", kind="unreachable")
        return await min(self.streams, key=lambda stream: stream.count).give(request)

    async def close(self) -> None:
        """Nothing to close: streams belong to those who opened them."""


class TopicStreams:
    """The streaming subscriptions of one app. A message waits for a stream that comes back, as for an app."""

    def __init__(self, app: AppView) -> None:
        self._app = app
        self._transports: dict[tuple[str, str], StreamTransport] = {}
        self._opening = asyncio.Lock()

    async def subscribe(
        self, requests: AsyncIterator[pb.SubscribeTopicEventsRequestAlpha1]
    ) -> AsyncGenerator[pb.SubscribeTopicEventsResponseAlpha1, None]:
        """Raises DaprError where the first message asks for what cannot be."""
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
            async for event in _events(stream, reading):
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
                    await blocks.broker.deliver(AppChannel(subscriber_id, transport), [wanted])
                except TransientError as error:
                    raise DaprError(500, "ERR_PUBSUB_SUBSCRIBE", f"cannot subscribe: {error.message}") from error
                self._transports[pubsub, topic] = transport
        return self._transports[pubsub, topic], subscriber_id


async def _events(
    stream: _Stream, reading: "asyncio.Future[None]"
) -> AsyncGenerator[pb.SubscribeTopicEventsResponseAlpha1, None]:
    """What is to be sent, until the other side has sent its last."""
    while not reading.done():
        event = asyncio.ensure_future(stream.events.get())
        either: list[asyncio.Future[Any]] = [event, reading]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not event.done():
            event.cancel()
            return
        yield event.result()


async def _read(requests: AsyncIterator[pb.SubscribeTopicEventsRequestAlpha1], stream: _Stream) -> None:
    async for request in requests:
        if request.HasField("event_processed"):
            stream.settle(request.event_processed.id, request.event_processed.status.status)
