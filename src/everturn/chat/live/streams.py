"""Streams of the events of turns, over Server-Sent Events. The journal is the truth: a stream keeps nothing of its own,
so it continues anywhere, after any event, in any process."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from everturn.chat.facts import TurnFacts
from everturn.chat.live.events import LiveEvent, Position, after, is_pause, position_of
from everturn.chat.live.feed import Feeds
from everturn.web.problems import Problem, unavailable
from everturn.web.requests import encoded_id

# Proxies close a connection on which nothing is said for a minute or so.
KEEP_ALIVE_S = 15.0
_KEEP_ALIVE = b": still here\n\n"
_RETRY_AFTER_S = 2.0

# An event as the client of a stream reads it; it may be nothing.
Encode = Callable[[LiveEvent], bytes]
# What ends a stream where a person has to decide; nothing if that is decided by now.
Stop = Callable[[], Awaitable[bytes]]


@dataclass(eq=False, slots=True)
class Streams:
    """Gives streams, at most `most_per_user` at once to a user. One that has nothing to say for `keep_alive_s` seconds
    says that it is there."""

    _feeds: Feeds
    most_per_user: int
    keep_alive_s: float = KEEP_ALIVE_S
    _open: Counter[str] = field(default_factory=Counter, init=False)

    def take_place(self, user_id: str, held: ExitStack) -> None:
        """Count a stream of the user until the request is answered: many may be asked for before one begins.

        Raises Problem (429) if the user has too many.
        """
        if self._open[user_id] >= self.most_per_user:
            raise unavailable(
                f"{self.most_per_user} streams are open for this user; close one of them, or set "
                "EVERTURN_MAX_STREAMS_PER_USER higher",
                retry_after_s=_RETRY_AFTER_S,
                status=429,
            )
        self._open[user_id] += 1
        held.callback(self._leave, user_id)

    def of(
        self,
        facts: TurnFacts,
        position: Position = (),
        encode: Encode = lambda event: event.encoded,
        *,
        one_run: bool = False,
        stop: Stop | None = None,
    ) -> "EventStream":
        """The stream of a turn, which has been looked at just now, after `position`, as `encode` has each event. Its
        place is taken.

        `one_run`: it ends also if a person has to decide, which ends a run of AG-UI. `stop`: it ends if a person has
        to decide now.
        """
        return EventStream(self._encoded(facts, position, encode, one_run, stop), facts)

    async def _encoded(
        self, facts: TurnFacts, position: Position, encode: Encode, one_run: bool, stop: Stop | None
    ) -> AsyncGenerator[bytes, None]:
        with self._feeds.of(facts.run) as feed:
            read = 0
            while True:
                news, is_over = feed.news, feed.is_over
                events = list(after(feed.events[read:], position, facts.run))
                read = len(feed.events)
                if one_run and (pauses := [count for count, event in enumerate(events, 1) if is_pause(event)]):
                    yield b"".join(map(encode, events[: pauses[0]]))
                    return
                if events:
                    position = events[-1].position
                    yield b"".join(map(encode, events))
                    if stop and is_pause(events[-1]) and (last := await stop()):
                        yield last
                        return
                elif is_over:
                    return
                else:
                    try:
                        async with asyncio.timeout(self.keep_alive_s):
                            await news.wait()
                    except TimeoutError:
                        yield _KEEP_ALIVE

    def _leave(self, user_id: str) -> None:
        self._open[user_id] -= 1
        if not self._open[user_id]:
            del self._open[user_id]


class EventStream(StreamingResponse):
    """The answer that carries a stream. To close it ends nothing but the stream."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[bytes, None], facts: TurnFacts) -> None:
        # Proxies neither keep what is said nor hold it back (nginx takes the second one for that).
        location = f"/turns/{encoded_id(facts.run.turn_id)}"
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "location": location}
        super().__init__(content, headers=headers)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)


def asked_position(last_event_id: str | None, after_id: str | None) -> Position:
    """Where a stream goes on. The header is of the same client, and newer than the address that it began with.

    Raises Problem (422) for what is no id of an event.
    """
    event_id = last_event_id or after_id
    if not event_id:
        return ()
    position = position_of(event_id)
    if position is None:
        name = "Last-Event-ID" if last_event_id else "after"
        raise Problem(422, f"{name}: must be the id of an event of this stream")
    return position
