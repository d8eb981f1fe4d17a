"""Giving one app the messages of one topic, until it has taken them.

A message that fails waits alone: later ones go on. An app that cannot be reached is left alone altogether for a while,
and that counts as no attempt of any message.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import quote

from everturn.errors import TransientError
from everturn.runtime.channels import AppChannel
from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.cloudevents import CLOUD_EVENT_JSON
from everturn.runtime.components import Subscription
from everturn.runtime.resiliency import DEFAULT_DELIVERY_RETRY, RetryPolicy
from everturn.runtime.topics import Delivery, TopicStore
from everturn.sidecar.wire import Request, Response

log = logging.getLogger(__name__)

# The topic of a delivery, percent-encoded.
TOPIC_HEADER = "everturn-topic"
# Enough to hide the latency of an app's own writes; more only makes its writers collide.
_MAX_IN_FLIGHT = 32
# Redis streams give a message to another consumer after this long (processingTimeout of pubsub.redis).
_DELIVERY_TIMEOUT_S = 60.0


class Verdict(Enum):
    """What an app said of a message."""

    SUCCESS = auto()
    RETRY = auto()
    DROP = auto()
    UNREACHABLE = auto()


@dataclass(slots=True)
class DeliveryCounts:
    """Since the start of the process. `dropped`: refused, with no dead-letter topic."""

    delivered: int = 0
    retried: int = 0
    dead_letters: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What all subscribers of a broker share. `announce` tells it of a message that was given to a topic."""

    store: TopicStore
    clock: Clock
    counts: DeliveryCounts
    announce: Callable[[str, str, Delivery], None]


class Subscriber:
    """One app's deliveries of one topic. Nothing is delivered before `release`."""

    def __init__(
        self,
        subscriber_id: int,
        subscription: Subscription,
        channel: AppChannel,
        policy: RetryPolicy,
        context: DeliveryContext,
    ) -> None:
        self._id = subscriber_id
        self.subscription = subscription
        self._channel = channel
        self._policy = policy
        self._longest_delay_s = max(policy.longest_delay_s, DEFAULT_DELIVERY_RETRY.longest_delay_s)
        self._context = context
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._held = True
        self._more_on_disk = True
        self._failures_in_a_row = 0
        self._paused_until = 0.0
        self._alarm: Alarm | None = None
        self._alarm_at = 0.0

    @property
    def app_id(self) -> str:
        return self._channel.app_id

    def offer(self, delivery: Delivery) -> None:
        """A message was just published: deliver it now, or find it on disk when its turn comes."""
        if self._room() > 0 and not self._more_on_disk:
            self._begin(delivery)
        else:
            self._more_on_disk = True

    def hold(self) -> None:
        """Begin no further delivery."""
        self._held = True

    def release(self) -> None:
        """Deliver what is due; an app that could not be reached is tried at once."""
        self._held = False
        self._paused_until = 0.0
        self._fill()

    async def stop(self, limit_s: float) -> None:
        """Let what is in flight finish within `limit_s`; what does not is delivered again after the next start."""
        self._held = True
        self._disarm()
        running = list(self._in_flight.values())
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=limit_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _room(self) -> int:
        if self._held or self._pause_left_s() > 0:
            return 0
        # One is enough to see whether the app is back.
        most = 1 if self._failures_in_a_row else _MAX_IN_FLIGHT
        return most - len(self._in_flight)

    def _pause_left_s(self) -> float:
        left_s = self._paused_until - self._context.clock.now()
        # Longer than any pause: the clock was set back.
        return left_s if left_s <= DEFAULT_DELIVERY_RETRY.longest_delay_s else 0.0

    def _fill(self) -> None:
        room = self._room()
        if room <= 0:
            self._more_on_disk = True  # for whoever makes room
            if not self._held and self._pause_left_s() > 0:
                self._arm(self._paused_until)
            return
        limit = room + len(self._in_flight)
        now = self._context.clock.now()  # one for both: what falls due between two would be in neither
        try:
            due = self._context.store.due(self._id, now, self._longest_delay_s, limit)
            next_due = self._context.store.next_due(self._id, now) if len(due) < limit else None
        except TransientError as error:
            self._pause("messages_unreadable", error)
            return
        self._more_on_disk = len(due) == limit
        for delivery in [item for item in due if item.message_id not in self._in_flight][:room]:
            self._begin(delivery)
        if next_due is not None:
            self._arm(next_due)

    def _begin(self, delivery: Delivery) -> None:
        if delivery.message_id in self._in_flight:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(delivery))
        self._in_flight[delivery.message_id] = task

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            verdict = await self._give(delivery)
            if verdict is not Verdict.UNREACHABLE:
                self._failures_in_a_row = 0
            await self._settle(delivery, verdict)
        except TransientError as error:  # the disk; the message is as it was there
            self._pause("delivery_not_settled", error)
        except Exception:
            log.exception("delivery_failed", extra=self._ids(delivery))
            self._pause("delivery_failed")
        finally:
            del self._in_flight[delivery.message_id]
        if self._more_on_disk and len(self._in_flight) <= _MAX_IN_FLIGHT // 2:
            self._fill()

    async def _give(self, delivery: Delivery) -> Verdict:
        # The topic on the envelope is the first one: of a dead letter it is not the topic that it comes from now.
        headers = {"content-type": CLOUD_EVENT_JSON, TOPIC_HEADER: quote(self.subscription.topic, safe="")}
        request = Request("POST", "/" + self.subscription.route.lstrip("/"), headers, delivery.body)
        try:
            async with asyncio.timeout(_DELIVERY_TIMEOUT_S):
                return read_verdict(await self._channel.send(request))
        except TimeoutError:
            return Verdict.RETRY
        except TransientError as error:
            return Verdict.RETRY if error.kind == "timeout" else Verdict.UNREACHABLE

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        counts = self._context.counts
        match verdict:
            case Verdict.SUCCESS:
                await self._context.store.taken(self._id, delivery.message_id)
                counts.delivered += 1
            case Verdict.RETRY:
                await self._retry(delivery)
            case Verdict.DROP:
                await self._refuse(delivery)
            case Verdict.UNREACHABLE:
                self._pause("app_unreachable")

    async def _retry(self, delivery: Delivery) -> None:
        attempts = delivery.attempts + 1
        delay_s = self._policy.delay_s(attempts, random.random)
        if delay_s is None and self.subscription.dead_letter_topic is not None:
            await self._refuse(delivery)
            return
        if delay_s is None:  # a broker gives a message again that nobody took and that has nowhere else to go
            delay_s = DEFAULT_DELIVERY_RETRY.delay_s(attempts, random.random) or 0.0
        due_at = self._context.clock.now() + delay_s
        await self._context.store.later(self._id, delivery.message_id, attempts, due_at)
        self._context.counts.retried += 1
        log.warning(
            "delivery_retried", extra={**self._ids(delivery), "attempt": attempts, "delay_s": round(delay_s, 3)}
        )
        self._arm(due_at)

    async def _refuse(self, delivery: Delivery) -> None:
        topic = self.subscription.dead_letter_topic
        if topic is None:
            await self._context.store.taken(self._id, delivery.message_id)
            self._context.counts.dropped += 1
            log.warning("message_dropped", extra=self._ids(delivery))
            return
        pubsub = self.subscription.pubsub
        letter_id = await self._context.store.dead_letter(self._id, delivery.message_id, (pubsub, topic))
        self._context.counts.dead_letters += 1
        log.warning("message_dead_lettered", extra={**self._ids(delivery), "dead_letter_topic": topic})
        self._context.announce(pubsub, topic, Delivery(letter_id, delivery.body))

    def _pause(self, event: str, error: TransientError | None = None) -> None:
        """Leave app and disk alone for a while that grows with each failure in a row."""
        self._more_on_disk = True
        if self._held or self._pause_left_s() > 0:
            return
        self._failures_in_a_row += 1
        delay_s = DEFAULT_DELIVERY_RETRY.delay_s(self._failures_in_a_row, random.random) or 0.0
        reason = {"reason": error.message} if error is not None else {}
        log.warning(event, extra={**self._ids(None), **reason, "delay_s": round(delay_s, 3)})
        self._paused_until = self._context.clock.now() + delay_s
        self._arm(self._paused_until)

    def _arm(self, when: float) -> None:
        if self._alarm is not None and self._alarm_at <= when:
            return
        self._disarm()
        self._alarm_at = when
        self._alarm = self._context.clock.call_at(when, self._wake)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _wake(self) -> None:
        self._alarm = None
        self._fill()

    def _ids(self, delivery: Delivery | None) -> dict[str, str | int]:
        ids: dict[str, str | int] = {"app_id": self.app_id, "topic": self.subscription.topic}
        return ids if delivery is None else {**ids, "message_id": delivery.message_id}


def read_verdict(response: Response) -> Verdict:
    """What a response says (https://docs.dapr.io/reference/api/pubsub_api/#expected-http-response).

    2xx with no status in it is SUCCESS, also where the body is no JSON; an unknown status is RETRY; 404 is DROP; every
    other code is RETRY.
    """
    if response.status == 404:
        return Verdict.DROP
    if not 200 <= response.status < 300:
        return Verdict.RETRY
    try:
        answer = json.loads(response.body) if response.body else None
    except ValueError:
        return Verdict.SUCCESS
    match answer.get("status") if isinstance(answer, dict) else None:
        case None | "" | "SUCCESS":
            return Verdict.SUCCESS
        case "DROP":
            return Verdict.DROP
        case _:
            return Verdict.RETRY
