"""Messages on disk: which there are, and who has not taken them yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from everturn.runtime.clock import Clock
from everturn.runtime.store.database import Database

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

# A topic of a pub/sub.
TopicName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a subscriber has to get. `attempts`: how often it was given and not taken."""

    message_id: int
    body: bytes
    attempts: int = 0


class TopicStore:
    """Messages and what is left to deliver. Every method raises TransientError where the disk does not let it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def publish(self, topic: TopicName, body: bytes) -> int:
        """Keep `body` for every subscriber of `topic`, also for those that come back later; the message's id."""
        now = self._clock.now()

        def job(cursor: apsw.Cursor) -> int:
            cursor.execute(_PUBLISH, {"pubsub": topic[0], "topic": topic[1], "body": body})
            message_id = cursor.connection.last_insert_rowid()
            _address(cursor, message_id, topic, now)
            return message_id

        return await self._database.write(job)

    async def publish_to(self, app_id: str, topic: TopicName, body: bytes) -> int | None:
        """Keep `body` for the app's own subscribers of `topic`; None, and nothing kept, where it has none."""
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

        A topic that is new to the app begins with what is there of it; what was left of one that is not among them is
        not delivered to this app any more. `unclaimed_only`: of what is there only what nobody else is to get.
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

    def due(self, subscriber_id: int, now: float, longest_delay_s: float, limit: int) -> list[Delivery]:
        """What is due at `now`, longest due first, at most `limit`.

        What would be due later than in `longest_delay_s` is due too: the clock was set back since.
        """
        bindings = {"subscriber": subscriber_id, "now": now, "longest": longest_delay_s, "limit": limit}
        rows = self._database.read(_DUE, bindings)
        return [Delivery(*row) for row in rows]

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
        """Give the message to `topic` instead, where it is kept for good; its id there."""
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
