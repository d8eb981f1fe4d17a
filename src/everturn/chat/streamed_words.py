"""The words of an answer while a model says them: facts of the journal in small batches, numbered from 0.

An attempt that asks a model begins with a fact of its own: what earlier attempts write after it does not count.
The writer of the verdict closes the words first: what comes after that does not count either. So all readers, whenever
and wherever, get the same words.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from everturn.chat.facts import Fact, Reply, TurnRun
from everturn.chat.journal import Journal
from everturn.contracts.fields import new_id, without_lone_surrogates
from everturn.errors import TransientError

log = logging.getLogger(__name__)

# Words are written this often while the model speaks, or once there are so many characters.
_EVERY_S = 0.2
_MOST_CHARS = 4_000
# How many are read at once, at first and at most: a listener reads often, and mostly there is nothing new.
_READ_FIRST, _READ_MOST = 2, 32
_FIRST_HALF = ("\ud800", "\udbff")


class Words(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of an answer: of which attempt (from 0), after how many calls of the run, and from which character on.

    Without text the attempt begins. `closed`: no more words count. `by` tells two writers apart that took the same
    number for their attempt: one of them was not the first.
    """

    is_cached: ClassVar[bool] = False

    by: str = ""
    attempt: int = -1
    calls: int = 0
    offset: int = 0
    text: str = ""
    closed: bool = False


# Called when the run has a new fact: words with their number, or (-1) another one.
OnFact = Callable[[int, Words | None], None]


class Hints:
    """Wakes the followers of a run in this process. The journal is the truth: a lost hint only costs time."""

    def __init__(self) -> None:
        self._following: dict[str, list[OnFact]] = {}

    @contextmanager
    def following(self, run: TurnRun, on_fact: OnFact) -> Iterator[None]:
        """Call `on_fact` with each new fact of `run` while the block runs."""
        listeners = self._following.setdefault(run.instance_id, [])
        listeners.append(on_fact)
        try:
            yield
        finally:
            listeners.remove(on_fact)
            if not listeners:
                del self._following[run.instance_id]

    def notify(self, run: TurnRun, number: int = -1, words: Words | None = None) -> None:
        for on_fact in self._following.get(run.instance_id, ()):
            on_fact(number, words)


async def words_from(journal: Journal, run: TurnRun, number: int = 0) -> list[Words]:
    """The words of `run` from that number on."""
    words: list[Words] = []
    count = _READ_FIRST
    while True:
        keys = [_key(run, number + len(words) + place) for place in range(count)]
        found = await journal.read_all(dict.fromkeys(keys, Words))
        for key in keys:
            if key not in found:
                return words
            words.append(found[key])
        count = min(2 * count, _READ_MOST)


async def close_words(journal: Journal, run: TurnRun) -> int:
    """Close the words of `run`: no later ones count. Returns how many do."""
    number = len(await words_from(journal, run))
    while (await journal.write(_key(run, number), _CLOSED)) != _CLOSED:
        number += 1
    return number


@dataclass(frozen=True, slots=True)
class WordWriters:
    """Makes the `WordWriter` of each attempt; each fact of words is kept for `ttl_s` seconds."""

    journal: Journal
    hints: Hints
    ttl_s: int

    def of(self, run: TurnRun) -> "WordWriter":
        return WordWriter(self.journal, self.hints, self.ttl_s, run)


class WordWriter:
    """Writes the words of one attempt of `run`, in the background.

    Words are not worth a turn: once the store does not take one, or somebody else speaks, no more are written.
    """

    def __init__(self, journal: Journal, hints: Hints, ttl_s: int, run: TurnRun) -> None:
        self._journal = journal
        self._run = run
        self._hints = hints
        self._ttl_s = ttl_s
        self._id = new_id()
        self._number = self._calls = 0
        self._attempt = -1
        # Of the call under way now: what is written, what is not yet, and the first half of a character.
        self._said = self._unwritten = self._half = ""
        self._is_over = False
        self._due = asyncio.Event()
        self._one_by_one = asyncio.Lock()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator["WordWriter"]:
        """Write while the block runs."""
        writing = asyncio.ensure_future(self._write_on())
        try:
            yield self
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    def begin_call(self, calls: int) -> None:
        """A model is asked, after `calls` calls of the run."""
        self._calls, self._said, self._unwritten, self._half = calls, "", "", ""
        self._due.set()

    def add(self, text: str) -> None:
        """The model says `text`."""
        text = self._half + text
        # The two halves of a character can come in two pieces; apart they are no text.
        self._half = text[-1] if text and _FIRST_HALF[0] <= text[-1] <= _FIRST_HALF[1] else ""
        self._unwritten += clean(text[: len(text) - len(self._half)])
        self._due.set()

    async def end_call(self) -> None:
        """Write what the call under way has said, since it does not give the reply."""
        await self._write()

    async def close(self, reply: Reply) -> Reply:
        """`reply` with the words that count. Its message is the one that was being said, if it says the same."""
        async with self._one_by_one:
            self._is_over = True
            newest, number = self._attempt, self._number
            while (there := await self._journal.write(_key(self._run, number), _CLOSED, ttl_s=self._ttl_s)) != _CLOSED:
                newest, number = max(newest, there.attempt), number + 1
        goes_on = newest == self._attempt >= 0 and reply.text.startswith(self._said)
        place = (reply.place[0], newest if goes_on else newest + 1)
        return msgspec.structs.replace(reply, words=number, place=place)

    async def _write_on(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await self._write()
            if len(self._unwritten) < _MOST_CHARS:
                await asyncio.sleep(_EVERY_S)

    async def _write(self) -> None:
        async with self._one_by_one:
            if self._is_over:
                return
            try:
                if self._attempt < 0:
                    await self._begin()
                if self._unwritten and not self._is_over:
                    await self._write_text()
            except TransientError as error:
                self._is_over = True
                log.warning("words_not_written", extra={"turn_id": self._run.turn_id, "reason": error.message})

    async def _begin(self) -> None:
        """Make the attempt the one whose words count."""
        attempt = 0
        while not await self._is_next(Words(by=self._id, attempt=attempt, calls=self._calls)):
            seen = await words_from(self._journal, self._run)
            self._number, attempt = len(seen), max((words.attempt for words in seen), default=-1) + 1
        self._attempt = attempt

    async def _write_text(self) -> None:
        text, self._unwritten = self._unwritten, ""
        words = Words(by=self._id, attempt=self._attempt, calls=self._calls, offset=len(self._said), text=text)
        while not await self._is_next(words):
            if self._is_over:
                return
            self._number += 1
        self._said += text

    async def _is_next(self, words: Words) -> bool:
        """Give `words` the next number, unless it is taken: by a newer attempt or the end, this one is over."""
        there = await self._journal.write(_key(self._run, self._number), words, ttl_s=self._ttl_s)
        if there != words:
            self._is_over = self._attempt >= 0 and (there.closed or there.attempt > self._attempt)
            return False
        self._hints.notify(self._run, self._number, words)
        self._number += 1
        return True


_CLOSED = Words(closed=True)


def clean(text: str) -> str:
    """`text` as a reply keeps it (`models.texts.checked_reply`), so that the words of a reply are its beginning."""
    return without_lone_surrogates(text).replace("\x00", "\ufffd")


def _key(run: TurnRun, number: int) -> str:
    return run.key(f"words:{number}")
