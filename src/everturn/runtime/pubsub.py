"""The broker: takes messages, keeps them, and brings them to the apps that subscribe."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from everturn.errors import TransientError
from everturn.runtime.channels import AppChannel
from everturn.runtime.clock import Clock, wait_until
from everturn.runtime.cloudevents import Publication, envelope
from everturn.runtime.components import Components, Subscription
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.deliveries import DeliveryContext, DeliveryCounts, Subscriber
from everturn.runtime.raw_json import JsonError
from everturn.runtime.resiliency import DEFAULT_DELIVERY_RETRY
from everturn.runtime.store.database import Database
from everturn.runtime.subscriptions import find_subscriptions
from everturn.runtime.topics import Delivery, TopicName, TopicStore

log = logging.getLogger(__name__)


class Broker:
    """Every `pubsub.*` component, in the runtime's database.

    A message is on disk before `publish` returns and stays there until each subscriber has taken it, over any crash.
    Nothing is delivered before `start`.
    """

    def __init__(self, database: Database, clock: Clock, components: Components) -> None:
        self.counts = DeliveryCounts()
        self.published = 0
        self.store = TopicStore(database, clock)
        self._clock = clock
        self._components = components
        self._context = DeliveryContext(self.store, clock, self.counts, self._announce)
        self._channels: list[AppChannel] = []
        self._subscribers: list[Subscriber] = []
        self._searches: dict[str, asyncio.Task[None]] = {}
        self.before_publish: Callable[[], Awaitable[None]] | None = None
        self.started = False
        self._away = False

    async def publish(self, publication: Publication) -> None:
        """Keep and deliver a message. Raises DaprError: 404 without such a pub/sub, 500 where it was not kept."""
        pubsub, topic = publication.pubsub, publication.topic
        if self._components.find("pubsub.", pubsub, publication.app_id) is None:
            raise DaprError(404, "ERR_PUBSUB_NOT_FOUND", f"pubsub {pubsub} is not found")
        if not topic:
            raise DaprError(404, "ERR_TOPIC_EMPTY", f"topic is empty in pubsub {pubsub}")
        what = f"error when publishing to topic {topic} in pubsub {pubsub}"
        if self._away:
            raise DaprError(500, "ERR_PUBSUB_PUBLISH_MESSAGE", f"{what}: the broker cannot be reached")
        try:
            body = envelope(publication, self._clock.now())
            if self.before_publish is not None:
                await self.before_publish()
            message_id = await self.store.publish((pubsub, topic), body)
        except JsonError as error:
            raise DaprError(500, "ERR_PUBSUB_CLOUD_EVENTS_SER", f"cannot create cloudevent: {error}") from error
        except TransientError as error:
            raise DaprError(500, "ERR_PUBSUB_PUBLISH_MESSAGE", f"{what}: {error.message}") from error
        self.published += 1
        self._announce(pubsub, topic, Delivery(message_id, body))

    async def take_in(self, app_id: str, topic: TopicName, body: bytes) -> bool:
        """Keep and deliver to the app alone a message that another runtime had for it; False where it takes none.

        Raises TransientError where the disk refuses.
        """
        message_id = await self.store.publish_to(app_id, topic, body)
        if message_id is None:
            return False
        own = [item for item in self._subscribers if f"{item.app_id}||".startswith(f"{app_id}||")]
        self._offer(own, topic, Delivery(message_id, body))
        return True

    def add_app(self, channel: AppChannel) -> None:
        """Deliver to this app, from `start` on, what it subscribes to."""
        self._channels.append(channel)
        if self.started:
            self._search(channel)

    def start(self) -> None:
        """Ask each app for its subscriptions, and begin to deliver to those that have answered."""
        self.started = True
        for channel in self._channels:
            self._search(channel)

    async def stop_app(self, app_id: str, limit_s: float) -> None:
        """Begin no further delivery to this app, let running ones finish within `limit_s`."""
        search = self._searches.pop(app_id, None)
        if search is not None:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)
        leaving = [subscriber for subscriber in self._subscribers if subscriber.app_id == app_id]
        self._subscribers = [subscriber for subscriber in self._subscribers if subscriber.app_id != app_id]
        self._channels = [channel for channel in self._channels if channel.app_id != app_id]
        await asyncio.gather(*(subscriber.stop(limit_s) for subscriber in leaving))

    async def subscribed(self, app_id: str) -> None:
        """Returns when the app has said what it subscribes to."""
        await self._searches[app_id]

    async def stop(self, limit_s: float) -> None:
        """Begin no further delivery, let running ones finish within `limit_s`. The rest waits on disk."""
        self.started = False
        app_ids = {channel.app_id for channel in self._channels} | {item.app_id for item in self._subscribers}
        await asyncio.gather(*(self.stop_app(app_id, limit_s) for app_id in app_ids))

    def set_away(self, away: bool) -> None:
        """As if the broker could not be reached: nothing can be published, nothing is delivered."""
        self._away = away
        for subscriber in self._subscribers:
            if away:
                subscriber.hold()
            else:
                subscriber.release()

    def app_is_back(self, app_id: str) -> None:
        """Try at once what waits because the app could not be reached."""
        for subscriber in self._subscribers:
            if subscriber.app_id == app_id and not self._away:
                subscriber.release()

    def subscriptions_of(self, app_id: str) -> list[Subscription]:
        """What is delivered to the app."""
        return [subscriber.subscription for subscriber in self._subscribers if subscriber.app_id == app_id]

    def _announce(self, pubsub: str, topic: str, delivery: Delivery) -> None:
        self._offer(self._subscribers, (pubsub, topic), delivery)

    @staticmethod
    def _offer(subscribers: Sequence[Subscriber], topic: TopicName, delivery: Delivery) -> None:
        for subscriber in subscribers:
            subscription = subscriber.subscription
            if subscription.topic == topic[1] and subscription.pubsub == topic[0]:
                subscriber.offer(delivery)

    def _search(self, channel: AppChannel) -> None:
        self._searches[channel.app_id] = asyncio.get_running_loop().create_task(self._subscribe(channel))

    async def _subscribe(self, channel: AppChannel) -> None:
        attempt = 0
        while True:
            try:
                await self._take_subscriptions(channel)
            except TransientError as error:
                log.info("subscriptions_not_known_yet", extra={"app_id": channel.app_id, "reason": error.message})
            except Exception:
                log.exception("subscriptions_failed", extra={"app_id": channel.app_id})
            else:
                return
            attempt += 1
            delay_s = DEFAULT_DELIVERY_RETRY.delay_s(attempt, random.random) or 0.0
            await wait_until(self._clock, self._clock.now() + delay_s)

    async def _take_subscriptions(self, channel: AppChannel) -> None:
        await self.deliver(channel, await find_subscriptions(channel, self._components))

    async def deliver(
        self, channel: AppChannel, wanted: Sequence[Subscription], *, unclaimed_only: bool = False
    ) -> None:
        """Make `wanted`, at most one a topic, all that is delivered over `channel` from now on.

        A new one begins with what is there of its topic; `unclaimed_only`: with what nobody else is to get.
        Raises TransientError where the disk refuses.
        """
        app_id = channel.app_id
        topics = [(item.pubsub, item.topic) for item in wanted]
        ids = await self.store.subscribe(app_id, topics, unclaimed_only=unclaimed_only)
        known = [subscriber for subscriber in self._subscribers if subscriber.app_id == app_id]
        leaving = [subscriber for subscriber in known if subscriber.subscription not in wanted]
        self._subscribers = [subscriber for subscriber in self._subscribers if subscriber not in leaving]
        await asyncio.gather(*(subscriber.stop(0) for subscriber in leaving))
        kept = [subscriber.subscription for subscriber in known if subscriber not in leaving]
        for item in wanted:
            if item in kept:
                continue
            policy = self._components.delivery_retry(item.pubsub, app_id.partition("||")[0])
            subscriber = Subscriber(ids[item.pubsub, item.topic], item, channel, policy, self._context)
            self._subscribers.append(subscriber)
            if not self._away:
                subscriber.release()
