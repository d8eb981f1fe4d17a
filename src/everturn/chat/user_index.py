"""What a user has: their turns in order of acceptance, in keys of the state store that are changed here alone.

`user:{id}:index` is changed by compare-and-swap, once for each turn: the newest entries, and which turns may not have
ended. When PAGE entries are together they are sealed: written to `user:{id}:turns:{n}`, which does not change any more,
before the index drops them. So neither a turn nor a list costs more for a user with many turns, or for one among many.

An entry is written before its turn is started, and before any answer names the turn. What a crash leaves:

| crash after | is there | what becomes of it |
|---|---|---|
| a page | the page, and its entries in the index too | the next sealing writes the same page again |
| the index | an entry of a turn that was never accepted | lists pass it over, and it soon counts as open no more |
| the index, of a rerun | an entry of a run that nobody asked for | it soon counts as open no more |
| both | a turn without a place | as above; without a repeat it counts as open no more after a minute |
| `accepted` alone | a turn that no client knows of, and that does not run | a repeated request enters it here first |

Nobody writes here when a turn ends: turns that may be open are looked up when there seem to be too many.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from everturn.chat.facts import Accepted, Fact, Outcome, RunAsked, TurnRun, accepted_key, asked_key, decoded, run_key
from everturn.chat.journal import Journal
from everturn.chat.session import parse_session, session_key
from everturn.contracts.fields import key_part, to_wire, utc_now
from everturn.dapr.client import Save, SidecarClient, Versioned, retry_conflicts
from everturn.errors import TransientError

# Never to be changed: the number of an entry says in which page it is.
PAGE = 25
# Pages that a list reads at a time.
_BULK = 4
# Between a turn's id, which is a uuid, and the number of a further run.
_RUN = " run "
TOO_MANY_OPEN = "too_many_open"
_RETRY_AFTER_S = 2.0
# So long after its acceptance a turn has its place, or gets one only by a repeat.
_UNTIL_PLACED = timedelta(minutes=1)


class IndexedTurn(msgspec.Struct, frozen=True):
    """A turn that was accepted, or nearly so, at `at`."""

    turn_id: str
    session_id: str
    at: str


class Page(Fact, frozen=True, kw_only=True, omit_defaults=True):
    turns: list[IndexedTurn]


class UserIndex(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """`pages` are sealed, `turns` come after them; `open`: runs that may not have ended, the first by its turn's id."""

    pages: int = 0
    turns: list[IndexedTurn] = msgspec.field(default_factory=list)
    open: list[str] = msgspec.field(default_factory=list)

    def has(self, turn_id: str) -> bool:
        return turn_id in self.open or any(turn.turn_id == turn_id for turn in self.turns)


def _open_id(run: TurnRun) -> str:
    return f"{run.turn_id}{_RUN}{run.number}" if run.number else run.turn_id


def _run_of(open_id: str) -> tuple[str, int]:
    turn_id, _, number = open_id.partition(_RUN)
    return turn_id, int(number or 0)


def index_key(user_id: str) -> str:
    return f"user:{key_part(user_id)}:index"


def page_key(user_id: str, number: int) -> str:
    return f"user:{key_part(user_id)}:turns:{number}"


@dataclass(eq=False, slots=True)
class UserIndexes:
    """The indexes of all users; a user may have `most_open` turns that have not ended.

    Raises TransientError if the store cannot be reached, and (kind `too_many_open`) for one turn more.
    """

    _dapr: SidecarClient
    _journal: Journal
    most_open: int
    # Within a process changes of an index go one after the other.
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False)

    async def read_with_room(self, user_id: str) -> Versioned[UserIndex]:
        """The index of a user who may have one more turn."""
        stored = await self._read(user_id)
        return Versioned(await self._with_room(stored.value), stored.etag)

    async def add(self, run: TurnRun, seen: Versioned[UserIndex] | None = None, *, is_new: bool) -> None:
        """Enter a turn, once however often it is tried, and one that `is_new` into the journal.

        Both are on disk before the turn starts. `seen` is the index as it was read before.
        """
        accepted = run.accepted
        user_id, entry = accepted.user_id, IndexedTurn(run.turn_id, accepted.session_id, accepted.at)

        async def try_once() -> None:
            nonlocal seen, is_new
            stored, seen = seen or await self._read(user_id), None
            writes: list[Awaitable[None]] = []
            if not stored.value.has(run.turn_id):
                index = await self._sealed(run, await self._with_room(stored.value))
                index = msgspec.structs.replace(index, turns=[*index.turns, entry], open=[*index.open, run.turn_id])
                etag = stored.etag or None
                save = Save(index_key(user_id), index.stored(), etag=etag, first_write=etag is None, durable=False)
                writes.append(self._dapr.save_state(save))
            if is_new:
                # At once, to wait for the disk once. Its errors count first: it is not tried again.
                writes.insert(0, self._journal.accept(run))
                is_new = False
            for outcome in await asyncio.gather(*writes, return_exceptions=True):
                if outcome is not None:
                    raise outcome

        lock = self._lock_of(user_id)
        if lock.locked():  # what was read before has been changed meanwhile
            seen = None
        async with lock:
            await retry_conflicts(try_once, f"the index of user {user_id!r}")

    async def open_again(self, run: TurnRun) -> None:
        """Count a further run of a turn as open, before it is asked for; once however often it is tried."""
        user_id = run.accepted.user_id

        async def try_once() -> None:
            stored = await self._read(user_id)
            if _open_id(run) in stored.value.open:
                return
            index = await self._with_room(stored.value)
            index = msgspec.structs.replace(index, open=[*index.open, _open_id(run)])
            etag = stored.etag or None
            await self._dapr.save_state(
                Save(index_key(user_id), index.stored(), etag=etag, first_write=etag is None, durable=False)
            )

        async with self._lock_of(user_id):
            await retry_conflicts(try_once, f"the index of user {user_id!r}")

    def _lock_of(self, user_id: str) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())

    async def newest(self, user_id: str, before: int | None = None) -> AsyncGenerator[tuple[int, IndexedTurn], None]:
        """The user's turns with their numbers, newest first; `before`: only those with a lower number."""
        index = (await self._read(user_id)).value
        start = index.pages * PAGE
        for number in range(start + len(index.turns) - 1, start - 1, -1):
            if before is None or number < before:
                yield number, index.turns[number - start]
        page = index.pages if before is None else min(index.pages, -(-before // PAGE))
        while page > 0:
            numbers = range(page - 1, max(page - 1 - _BULK, -1), -1)
            found = await self._dapr.get_states([page_key(user_id, number) for number in numbers])
            for number in numbers:
                if page_key(user_id, number) not in found:
                    return  # its time is over, and that of all before it
                turns = decoded_page(found[page_key(user_id, number)].value).turns
                for place in range(len(turns) - 1, -1, -1):
                    if before is None or number * PAGE + place < before:
                        yield number * PAGE + place, turns[place]
            page = numbers[-1]

    async def _read(self, user_id: str) -> Versioned[UserIndex]:
        item = await self._dapr.get_state(index_key(user_id))
        return Versioned(UserIndex(), "") if item is None else Versioned(decoded(item.value, UserIndex), item.etag)

    async def _with_room(self, index: UserIndex) -> UserIndex:
        """The index without the turns that are known to have ended. The store is asked only if it could matter."""
        still_open = [one for one in index.open if not self._journal.knows(run_key(*_run_of(one), "outcome"))]
        if len(still_open) >= self.most_open or len(index.turns) == PAGE:
            still_open = await self._not_ended(still_open)
        if len(still_open) >= self.most_open:
            raise TransientError(
                f"{len(still_open)} turns of this user have not ended; wait for one, or set "
                "EVERTURN_MAX_OPEN_TURNS_PER_USER higher",
                kind=TOO_MANY_OPEN,
                retry_after_s=_RETRY_AFTER_S,
            )
        return msgspec.structs.replace(index, open=still_open)

    async def _not_ended(self, open_ids: Sequence[str]) -> list[str]:
        """Those that were accepted, or asked for, have a place or are about to get it, and have not ended."""
        runs = {one: _run_of(one) for one in open_ids}
        begins = {
            one: asked_key(turn_id, number) if number else accepted_key(turn_id)
            for one, (turn_id, number) in runs.items()
        }
        ends = {one: run_key(turn_id, number, "outcome") for one, (turn_id, number) in runs.items()}
        kinds = {key: RunAsked if _RUN in one else Accepted for one, key in begins.items()}
        found = await self._journal.read_all({**kinds, **dict.fromkeys(ends.values(), Outcome)})
        not_ended = [one for one in open_ids if begins[one] in found and ends[one] not in found]
        firsts = [TurnRun(one, 0, found[accepted_key(one)]) for one in not_ended if _RUN not in one]
        unplaced = await self._unplaced(firsts)
        return [one for one in not_ended if one not in unplaced]

    async def _unplaced(self, runs: Sequence[TurnRun]) -> set[str]:
        """The ids of those that got no place in time: their client heard 503, and has not repeated its request."""
        latest = to_wire(utc_now() - _UNTIL_PLACED)
        keys = {run.turn_id: session_key(run.accepted.session_id) for run in runs if run.accepted.at < latest}
        items = await self._dapr.get_states(sorted({*keys.values()})) if keys else {}
        sessions = {key: parse_session(item.value) for key, item in items.items()}
        placed = {
            run.turn_id
            for run in runs
            if (session := sessions.get(keys.get(run.turn_id, ""))) is not None and session.place_of(run) is not None
        }
        return {*keys} - placed

    async def _sealed(self, run: TurnRun, index: UserIndex) -> UserIndex:
        """The index with room for an entry. A page is kept as long as a turn that does not end."""
        if len(index.turns) < PAGE:
            return index
        key, page = page_key(run.accepted.user_id, index.pages), Page(turns=index.turns)
        await self._dapr.save_state(Save(key, page.stored(), ttl_s=self._journal.ttl_s(run.accepted)))
        return msgspec.structs.replace(index, pages=index.pages + 1, turns=[])


def decoded_page(value: Any) -> Page:
    page: Page = decoded(value, Page)
    return page
