"""What a run says, for all its listeners in this process: one reader of the journal, however many listen.

Hints wake the reader, and hand it the words that are written in this process. Other replicas write too, so the journal
is looked at while somebody listens: soon, if looks find something, else less and less often.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from everturn.chat.calls import calls_of
from everturn.chat.facts import TurnFacts, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.live.events import EventFold, LiveEvent
from everturn.chat.streamed_words import Hints, Words, words_from
from everturn.chat.waiting import TurnWaiter
from everturn.errors import TransientError

log = logging.getLogger(__name__)

# Seconds between two reads without a hint.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_FOR_EVER_S = 1e6


@dataclass(eq=False, slots=True)
class Feeds:
    """The feeds of the runs that have listeners."""

    _journal: Journal
    _waiter: TurnWaiter
    _hints: Hints
    _listened: "dict[str, Feed]" = field(default_factory=dict, init=False)

    @contextmanager
    def of(self, run: TurnRun) -> "Iterator[Feed]":
        """The feed of `run`, while the block runs."""
        feed = self._listened.get(run.instance_id)
        if feed is None:
            feed = self._listened[run.instance_id] = Feed(self._journal, self._waiter, self._hints, run)
        feed.listeners += 1
        try:
            yield feed
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                del self._listened[run.instance_id]
                feed.close()


class Feed:
    """The events of a run so far. `news` is set when there are more, or when there will be none: it `is_over`."""

    def __init__(self, journal: Journal, waiter: TurnWaiter, hints: Hints, run: TurnRun) -> None:
        self.listeners = 0
        self.events: list[LiveEvent] = []
        self.is_over = False
        self.news = asyncio.Event()
        self._journal = journal
        self._waiter = waiter
        self._hints = hints
        self._run = run
        self._fold = EventFold(run)
        self._hint = asyncio.Event()
        self._following = asyncio.ensure_future(self._follow())

    def close(self) -> None:
        """Nobody listens any more."""
        self._following.cancel()

    def _publish(self, events: Iterator[LiveEvent]) -> None:
        before = len(self.events)
        self.events.extend(events)
        if len(self.events) > before:
            self.news.set()
            self.news = asyncio.Event()

    def _on_fact(self, number: int, words: Words | None) -> None:
        if words is not None and number == self._fold.next_words and words.calls < self._fold.next_call:
            self._publish(self._fold.add([words]))
        else:
            self._hint.set()

    async def _follow(self) -> None:
        """Look and wait until all events of the run are there, or the process stops."""
        ended, look_s, is_hinted = self._end(), _FIRST_LOOK_S, False
        try:
            with self._hints.following(self._run, self._on_fact):
                while True:
                    before = len(self.events)
                    if await self._look() or (ended.done() and self._waiter.released):
                        return
                    has_found = not is_hinted and len(self.events) > before
                    look_s = _FIRST_LOOK_S if has_found else min(_LONGEST_LOOK_S, 1.5 * look_s)
                    if ended.done():
                        ended = self._end()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(look_s):
                            await self._hint.wait()
                    is_hinted = self._hint.is_set()
        finally:
            ended.cancel()
            self.is_over = True
            self.news.set()

    def _end(self) -> "asyncio.Future[TurnFacts]":
        """Done when the run has ended, which is a hint. Makes sure meanwhile that the head of its session runs."""
        ended = asyncio.ensure_future(self._waiter.wait(self._run, _FOR_EVER_S))
        ended.add_done_callback(lambda _: self._hint.set())
        return ended

    async def _look(self) -> bool:
        """Publish what is new in the journal; whether that was the end.

        It is complete in the order in which it is read: words and calls are written before the verdict, calls before
        the words that follow them.
        """
        self._hint.clear()
        run, fold = self._run, self._fold
        try:
            verdict = await self._journal.verdict(run)
            outcome = await self._journal.outcome(run) if verdict else None
            first_words, first_call = fold.next_words, fold.next_call
            words = await words_from(self._journal, run, first_words) if run.accepted.streamed else []
            calls = await calls_of(self._journal, run, first_call)
        except TransientError as error:
            log.warning("turn_out_of_sight", extra={"turn_id": run.turn_id, "reason": error.message})
            return False
        # Some may have come as hints meanwhile.
        new_words, new_calls = words[fold.next_words - first_words :], calls[fold.next_call - first_call :]
        self._publish(fold.add(new_words, new_calls, verdict, outcome))
        return outcome is not None
