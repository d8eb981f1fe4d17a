"""The messages on disk, which subscribers have not taken them yet, and their delivery to one app until it has.

A message that fails waits alone while later ones are delivered. An app that cannot be reached gets nothing for a while,
and that counts as no attempt of any message.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from urllib.parse import quote

import apsw

from everturn.dapr.wire import Request, Response
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.database.database import Database
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.resources.components import Subscription, TopicName
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY, RetryPolicy

_PUBLISH = "INSERT INTO messages (pubsub, topic, body) VALUES (:pubsub, :topic, :body)"
_ADDRESS = """
INSERT INTO deliveries (message_id, subscriber_id, due_at)
SELECT :message, id, :now FROM subscribers WHERE pubsub = :pubsub AND topic = :topic
"""
# An app's own subscribers: itself, and its streams (`app||stream||…`).
_OWN = "(app_id = :app OR substr(app_id, 1, length(:app) + 2) = :app || '||')"
_ADDRESS_OWN = f"{_ADDRESS.rstrip()} AND {_OWN}"
_OWN_TOPICS = f"SELECT DISTINCT pubsub, topic FROM subscribers WHERE {_OWN}"  # noqa: S608
_DUE = """
SELECT message_id, body, attempts FROM deliveries JOIN messages ON messages.id = message_id
WHERE subscriber_id = :subscriber AND (due_at <= :now OR due_at > :now + :longest)
ORDER BY due_at, message_id LIMIT :limit
"""
_NEXT_DUE = "SELECT min(due_at) FROM deliveries WHERE subscriber_id = ? AND due_at > ?"
_TAKEN = "DELETE FROM deliveries WHERE message_id = :message AND subscriber_id = :subscriber"
_FORGET = """
DELETE FROM messages WHERE id = :message AND kept = 0
AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message_id = :message)
"""
_LATER = "UPDATE deliveries SET attempts = ?, due_at = ? WHERE message_id = ? AND subscriber_id = ?"
_COPY_TO_DEAD_LETTERS = """
INSERT INTO messages (pubsub, topic, body, kept) SELECT pubsub, :topic, body, 1 FROM messages WHERE id = :message
"""
_SUBSCRIPTIONS_OF = "SELECT id, pubsub, topic FROM subscribers WHERE app_id = ?"
_SUBSCRIBE = "INSERT INTO subscribers (app_id, pubsub, topic) VALUES (:app, :pubsub, :topic)"
_CATCH_UP = """
INSERT INTO deliveries (message_id, subscriber_id, due_at)
SELECT id, :subscriber, :now FROM messages WHERE pubsub = :pubsub AND topic = :topic
"""
_CATCH_UP_UNCLAIMED = f"""
{_CATCH_UP.rstrip()} AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message_id = messages.id)
"""  # noqa: S608
_FORGET_TAKEN_BY_ALL = """
DELETE FROM messages WHERE pubsub = :pubsub AND topic = :topic AND kept = 0
AND EXISTS (SELECT 1 FROM subscribers WHERE pubsub = :pubsub AND topic = :topic)
AND NOT EXISTS (SELECT 1 FROM deliveries WHERE message_id = messages.id)
"""


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message that a subscriber has not taken yet. `attempts`: how often it was delivered and not taken."""

    message_id: int
    body: bytes
    attempts: int = 0


class TopicStore:
    """Messages and what is left to deliver. Every method raises TransientError if the disk does not let it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def publish(
        self, topic: TopicName, body: bytes, kept: Callable[[PendingMessage], None], *, durable: bool = True
    ) -> None:
        """Keep `body` for every subscriber of `topic`, also for those that come back later.

        `kept` gets the message once it is on disk. Not `durable`: this may return before.
        """
        now = self._clock.now()

        def job(cursor: apsw.Cursor) -> PendingMessage:
            cursor.execute(_PUBLISH, {"pubsub": topic[0], "topic": topic[1], "body": body})
            message_id = cursor.connection.last_insert_rowid()
            _address(cursor, message_id, topic, now)
            return PendingMessage(message_id, body)

        await self._database.write(job, kept, durable=durable)

    async def publish_to(self, app_id: str, topic: TopicName, body: bytes) -> int | None:
        """Keep `body` for the app's own subscribers of `topic`; None, and nothing kept, if it has none."""
        now = self._clock.now()

        def job(cursor: apsw.Cursor) -> int | None:
            cursor.execute(_PUBLISH, {"pubsub": topic[0], "topic": topic[1], "body": body})
            message_id = cursor.connection.last_insert_rowid()
            bindings = {"message": message_id, "now": now, "pubsub": topic[0], "topic": topic[1], "app": app_id}
            cursor.execute(_ADDRESS_OWN, bindings)
            if cursor.connection.changes() > 0:
                return message_id
            cursor.execute("DELETE FROM messages WHERE id = ?", (message_id,))
            return None

        return await self._database.write(job)

    def topics_of(self, app_id: str) -> frozenset[TopicName]:
        """What the app subscribes to, also on streams."""
        return frozenset((pubsub, topic) for pubsub, topic in self._database.read(_OWN_TOPICS, {"app": app_id}))

    async def subscribe(
        self, app_id: str, topics: Iterable[TopicName], *, unclaimed_only: bool = False
    ) -> dict[TopicName, int]:
        """Make `topics` all that the app subscribes to; the ids of these subscribers.

        A topic that is new to the app begins with what there is of it; what was left of one that is not among them is
        not delivered to this app any more. `unclaimed_only`: of what there is only what nobody else is to get.
        """
        wanted, now = set(topics), self._clock.now()

        def job(cursor: apsw.Cursor) -> dict[TopicName, int]:
            rows: list[Any] = cursor.execute(_SUBSCRIPTIONS_OF, (app_id,)).fetchall()
            known: dict[TopicName, int] = {(pubsub, topic): subscriber for subscriber, pubsub, topic in rows}
            for topic in known.keys() - wanted:
                _unsubscribe(cursor, known.pop(topic), topic)
            for topic in sorted(wanted - known.keys()):
                known[topic] = _subscribe(
                    cursor, app_id, topic, now, _CATCH_UP_UNCLAIMED if unclaimed_only else _CATCH_UP
                )
            return known

        return await self._database.write(job)

    def due(self, subscriber_id: int, now: float, longest_delay_s: float, limit: int) -> list[PendingMessage]:
        """What is due at `now`, longest due first, at most `limit`.

        What would be due later than in `longest_delay_s` is due too: the clock was set back since.
        """
        bindings = {"subscriber": subscriber_id, "now": now, "longest": longest_delay_s, "limit": limit}
        rows = self._database.read(_DUE, bindings)
        return [PendingMessage(*row) for row in rows]

    def next_due(self, subscriber_id: int, now: float) -> float | None:
        """When the next message is due that is not due at `now`."""
        due_at: float | None = self._database.read(_NEXT_DUE, (subscriber_id, now))[0][0]
        return due_at

    async def taken(self, subscriber_id: int, message_id: int) -> None:
        """The subscriber has the message; when it was the last one, the message is gone."""
        await self._database.write(lambda cursor: _take(cursor, subscriber_id, message_id))

    async def later(self, subscriber_id: int, message_id: int, attempts: int, due_at: float) -> None:
        """Deliver the message again at `due_at`."""
        await self._database.write(lambda cursor: cursor.execute(_LATER, (attempts, due_at, message_id, subscriber_id)))

    async def dead_letter(self, subscriber_id: int, message_id: int, topic: TopicName) -> int:
        """Move the message to `topic`, which keeps it for good; its id there."""
        now = self._clock.now()

        def job(cursor: apsw.Cursor) -> int:
            cursor.execute(_COPY_TO_DEAD_LETTERS, {"topic": topic[1], "message": message_id})
            letter_id = cursor.connection.last_insert_rowid()
            _address(cursor, letter_id, topic, now)
            _take(cursor, subscriber_id, message_id)
            return letter_id

        return await self._database.write(job)

    def pending(self) -> int:
        """Deliveries that are not acknowledged."""
        count: int = self._database.read("SELECT count(*) FROM deliveries")[0][0]
        return count

    def messages(self, topic: TopicName, limit: int) -> list[bytes]:
        """The newest messages of `topic` that are on disk, newest first."""
        rows = self._database.read(
            "SELECT body FROM messages WHERE pubsub = ? AND topic = ? ORDER BY id DESC LIMIT ?", (*topic, limit)
        )
        return [row[0] for row in rows]


def _address(cursor: apsw.Cursor, message_id: int, topic: TopicName, now: float) -> None:
    cursor.execute(_ADDRESS, {"message": message_id, "now": now, "pubsub": topic[0], "topic": topic[1]})


def _take(cursor: apsw.Cursor, subscriber_id: int, message_id: int) -> None:
    bindings = {"message": message_id, "subscriber": subscriber_id}
    cursor.execute(_TAKEN, bindings)
    cursor.execute(_FORGET, bindings)


def _subscribe(cursor: apsw.Cursor, app_id: str, topic: TopicName, now: float, catch_up: str) -> int:
    cursor.execute(_SUBSCRIBE, {"app": app_id, "pubsub": topic[0], "topic": topic[1]})
    subscriber_id = cursor.connection.last_insert_rowid()
    bindings = {"subscriber": subscriber_id, "now": now, "pubsub": topic[0], "topic": topic[1]}
    cursor.execute(catch_up, bindings)
    return subscriber_id


def _unsubscribe(cursor: apsw.Cursor, subscriber_id: int, topic: TopicName) -> None:
    cursor.execute("DELETE FROM subscribers WHERE id = ?", (subscriber_id,))
    cursor.execute("DELETE FROM deliveries WHERE subscriber_id = ?", (subscriber_id,))
    cursor.execute(_FORGET_TAKEN_BY_ALL, {"pubsub": topic[0], "topic": topic[1]})


log = logging.getLogger(__name__)

# The topic of a delivery, percent-encoded.
TOPIC_HEADER = "everturn-topic"
CLOUD_EVENT_JSON = "application/cloudevents+json"
# Enough to hide the latency of an app's own writes; more only makes its writers collide.
_MAX_IN_FLIGHT = 32
# Redis streams give a message to another consumer after this long (processingTimeout of pubsub.redis).
_DELIVERY_TIMEOUT_S = 60.0
# No pause of an app that cannot be reached is longer.
_LONGEST_PAUSE_S = DEFAULT_DELIVERY_RETRY.longest_delay_s


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
    """What all dispatchers of a broker share. `announce` is called with each message that was given to a topic."""

    store: TopicStore
    clock: Clock
    counts: DeliveryCounts
    announce: Callable[[TopicName, PendingMessage], None]


class TopicDispatcher:
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
        self._longest_delay_s = max(policy.longest_delay_s, _LONGEST_PAUSE_S)
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

    def offer(self, topic: TopicName, message: PendingMessage) -> None:
        """A message was just published: if the topic is this one, deliver it now, or find it on disk in its turn."""
        if topic != self.subscription.topic_name:
            return
        if self._room() > 0 and not self._more_on_disk:
            self._begin(message)
        else:
            self._more_on_disk = True

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
        return left_s if left_s <= _LONGEST_PAUSE_S else 0.0

    def _fill(self) -> None:
        room = self._room()
        if room <= 0:
            self._more_on_disk = True  # until there is room
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
        for message in [item for item in due if item.message_id not in self._in_flight][:room]:
            self._begin(message)
        if next_due is not None:
            self._arm(next_due)

    def _begin(self, message: PendingMessage) -> None:
        if message.message_id in self._in_flight:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        self._in_flight[message.message_id] = task

    async def _deliver(self, message: PendingMessage) -> None:
        try:
            verdict = await self._give(message)
            await self._settle(message, verdict)
            if verdict is not Verdict.UNREACHABLE:  # and the disk has taken what became of it
                self._failures_in_a_row = 0
        except TransientError as error:  # the disk; the message is as it was there
            self._pause("delivery_not_settled", error)
        except TerminalError as error:  # nothing can be sent to this app, because of its token, say
            self._pause("app_unreachable", error)
        except Exception:
            log.exception("delivery_failed", extra=self._ids(message))
            self._pause("delivery_failed")
        finally:
            del self._in_flight[message.message_id]
        if self._more_on_disk and len(self._in_flight) <= _MAX_IN_FLIGHT // 2:
            self._fill()

    async def _give(self, message: PendingMessage) -> Verdict:
        # The topic on the envelope is the first one: of a dead letter it is not the topic that it comes from now.
        headers = {"content-type": CLOUD_EVENT_JSON, TOPIC_HEADER: quote(self.subscription.topic, safe="")}
        request = Request("POST", "/" + self.subscription.route.lstrip("/"), headers, message.body)
        try:
            async with asyncio.timeout(_DELIVERY_TIMEOUT_S):
                return read_verdict(await self._channel.send(request))
        except TimeoutError:
            return Verdict.RETRY
        except TransientError as error:
            return Verdict.RETRY if error.kind == "timeout" else Verdict.UNREACHABLE

    async def _settle(self, message: PendingMessage, verdict: Verdict) -> None:
        counts = self._context.counts
        match verdict:
            case Verdict.SUCCESS:
                await self._context.store.taken(self._id, message.message_id)
                counts.delivered += 1
            case Verdict.RETRY:
                await self._retry(message)
            case Verdict.DROP:
                await self._refuse(message)
            case Verdict.UNREACHABLE:
                self._pause("app_unreachable")

    async def _retry(self, message: PendingMessage) -> None:
        attempts = message.attempts + 1
        delay_s = self._policy.delay_s(attempts)
        if delay_s is None and self.subscription.dead_letter_topic is not None:
            await self._refuse(message)
            return
        if delay_s is None:  # a broker gives a message again that nobody took and that has nowhere else to go
            delay_s = DEFAULT_DELIVERY_RETRY.delay_s(attempts) or 0.0
        due_at = self._context.clock.now() + delay_s
        await self._context.store.later(self._id, message.message_id, attempts, due_at)
        self._context.counts.retried += 1
        log.warning("delivery_retried", extra={**self._ids(message), "attempt": attempts, "delay_s": round(delay_s, 3)})
        self._arm(due_at)

    async def _refuse(self, message: PendingMessage) -> None:
        topic = self.subscription.dead_letter_topic
        if topic is None:
            await self._context.store.taken(self._id, message.message_id)
            self._context.counts.dropped += 1
            log.warning("message_dropped", extra=self._ids(message))
            return
        name = self.subscription.pubsub, topic
        letter_id = await self._context.store.dead_letter(self._id, message.message_id, name)
        self._context.counts.dead_letters += 1
        log.warning("message_dead_lettered", extra={**self._ids(message), "dead_letter_topic": topic})
        self._context.announce(name, PendingMessage(letter_id, message.body))

    def _pause(self, event: str, error: EverturnError | None = None) -> None:
        """Deliver nothing for a while that grows with each failure in a row."""
        self._more_on_disk = True
        if self._held or self._pause_left_s() > 0:
            return
        self._failures_in_a_row += 1
        delay_s = DEFAULT_DELIVERY_RETRY.delay_s(self._failures_in_a_row) or 0.0
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

    def _ids(self, message: PendingMessage | None) -> dict[str, str | int]:
        ids: dict[str, str | int] = {"app_id": self.app_id, "topic": self.subscription.topic}
        return ids if message is None else {**ids, "message_id": message.message_id}


def read_verdict(response: Response) -> Verdict:
    """What a response means (https://docs.dapr.io/reference/api/pubsub_api/#expected-http-response).

    2xx with no status in it is SUCCESS, also if the body is no JSON; an unknown status is RETRY; 404 is DROP; every
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
