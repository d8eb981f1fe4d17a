"""Who runs next in a session: one key of the state store (`session:{id}`), changed by compare-and-swap here alone.

The order of these writes is the order of the turns, whichever replica made them. The head of the queue is the turn that
runs. What a crash leaves after each of them, and who finishes it:

| crash after | is there | finished by |
|---|---|---|
| the claim, or `accepted` | no workflow, no place: nobody heard that it was accepted | a repeated request |
| the start of the workflow (the queue was empty) | a workflow without a place | its first step: `take_turn` enters it |
| entering an empty queue | the head, which runs | – |
| a start that Dapr loses | a head whose workflow never begins | a look, or a repeated request, wakes it |
| entering behind others | a place | the end of the turn before, which starts it |
| entering with `interrupt` | turns before it that are to be cancelled | their own steps; a look; a repeated request |
| stepping aside to wait for a person | a head without a workflow | the step that stepped aside, which is repeated |
| being taken up by a running turn | a place that names it | the end of that turn: both have ended, or it is next |
| a verdict of cancellation | a place | its workflow, which finds the verdict as soon as it runs |
| an outcome | an ended turn at the head | the step that wrote it, which is repeated; a look; the next message |
| leaving | a head without a workflow | the step that left, which is repeated and starts the head again |

Two first messages at once can start two workflows: whose turn is not the head waits, for `your_turn` or half a minute,
and looks again. A first message of another user is refused when its place is written, as is one with `overlap: reject`
if a turn is there; its workflow leaves no trace. That it was refused is a fact; then the session is written, as for a
place, so that nobody enters it afterwards; then its `accepted` is deleted. A crash before that leaves what a repeated
request refuses.

A message with `overlap: merge` is taken up here as well: the head writes itself into the places behind it. From then on
that message cannot be cancelled, and does not run, before the head leaves; in the same write it leaves with those that
its verdict shares, and lets go of others (another attempt had taken them, and its reply came second).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from everturn.chat.facts import TurnRun
from everturn.chat.journal import Journal
from everturn.chat.session import (
    QueuedTurn,
    Session,
    busy,
    check_not_busy,
    check_not_taken,
    check_owner,
    parse_session,
    session_key,
    stored_session,
)
from everturn.contracts.chat import Overlap
from everturn.dapr.client import Save, SidecarClient, Versioned, retry_conflicts
from everturn.errors import TerminalError

log = logging.getLogger(__name__)

_CACHED_SESSIONS = 4_000
_LONGEST_CACHED = 50

_REFUSALS = ("forbidden", "busy")


class Standing(StrEnum):
    """What a workflow finds when it asks for its turn."""

    HEAD = "head"
    WAITS = "waits"
    GONE = "gone"


def _standing(session: Session, run: TurnRun) -> Standing:
    head = session.head
    return Standing.HEAD if head is not None and head.is_of(run) and not head.paused else Standing.WAITS


class TurnStarter(Protocol):
    """Starts the workflows of turns: `workflow.chat_turn.TurnWorkflows`."""

    async def start(self, run: TurnRun) -> None: ...

    async def start_waiting(self, turn_id: str, number: int, session_id: str) -> None: ...


class SessionQueue:
    """Enters turns, takes them out, and sees to it that the head runs.

    Raises TransientError if the store or the workflow engine cannot be reached.
    """

    def __init__(self, dapr: SidecarClient, journal: Journal, workflows: TurnStarter) -> None:
        self._dapr = dapr
        self._journal = journal
        self._workflows = workflows
        self._seen: OrderedDict[str, Session] = OrderedDict()
        # Within a process changes of a session go one after the other, and a first step sees what acceptance wrote.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def read(self, session_id: str, user_id: str) -> Versioned[Session]:
        """The session as it is now; a new one of `user_id`, without an ETag, if there is none."""
        item = await self._dapr.get_state(session_key(session_id))
        if item is None:
            return Versioned(Session(user_id), "")
        session = parse_session(item.value)
        self._see(session_id, session)
        return Versioned(session, item.etag)

    async def session_of(self, run: TurnRun) -> Session:
        """The session of `run` as it is now."""
        return (await self.read(run.accepted.session_id, run.accepted.user_id)).value

    async def read_many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """The sessions that there are, by id."""
        keys = {session_key(session_id): session_id for session_id in session_ids}
        found = await self._dapr.get_states(list(keys)) if keys else {}
        return {keys[key]: parse_session(item.value) for key, item in found.items()}

    async def read_settled(self, session_id: str, user_id: str) -> Versioned[Session]:
        """As `read`, but waits for changes by this process: a turn that has replied is gone from the queue."""
        async with self._lock(session_id):
            return await self.read(session_id, user_id)

    def last_seen(self, run: TurnRun) -> Session | None:
        """The session as this process saw or wrote it last, if `run` is its head there.

        What it says of the turns before is final then; places behind and pauses may have changed since.
        """
        session = self._seen.get(run.accepted.session_id)
        return session if session is not None and session.head is not None and session.head.is_of(run) else None

    async def enter(self, run: TurnRun, seen: Versioned[Session] | None = None, *, is_new: bool) -> QueuedTurn | None:
        """Give `run` its place at the end, and start it if it is the first; None if it has ended already.

        The workflow is started before the place is written: from then on the turn needs nobody. `is_new`: nobody else
        knows of this run yet. `seen` is the session as it was read before. Raises TerminalError if it is refused, and
        forgets it: kind `forbidden` if the session is another user's, `busy` if it does not wait for a turn there.
        """
        started = False

        async def try_once() -> QueuedTurn | None:
            nonlocal seen, is_new, started
            # The session first: had the turn left in between, its outcome would be there.
            stored, seen = seen or await self.read(accepted.session_id, accepted.user_id), None
            check_owner(stored.value, accepted.session_id, accepted.user_id)
            if place := stored.value.place_of(run):
                return place
            if not is_new and await self._journal.outcome(run) is not None:
                return None
            if (refusing := stored.value.refusing(run)) is not stored.value:
                # The fact first: whatever reads the session behind this write finds it, however many are refused.
                await self._journal.refuse(run)
                await self._save(accepted.session_id, refusing, stored.etag)
            elif not is_new and run.overlap == Overlap.REJECT and await self._journal.is_refused(run):
                raise busy()
            check_not_busy(refusing, run)
            changed, place = stored.value.appended(run)
            is_new = False
            if stored.value.head is None and not started:
                await self._workflows.start(run)
                started = True
            await self._save(accepted.session_id, changed, stored.etag)
            return place

        accepted = run.accepted
        async with self._lock(accepted.session_id):
            try:
                return await retry_conflicts(try_once, f"session {accepted.session_id!r}")
            except TerminalError as error:
                if error.kind in _REFUSALS:
                    await self._journal.forget(run)
                raise

    async def take_turn(self, run: TurnRun, *, starts_first: bool) -> Standing:
        """Where a run stands whose workflow has started; it enters the queue now if it is in none and has not ended.

        `starts_first`: the workflow was started before its place was written, so that a pause would suspend it: what
        this process saw of the session is enough.
        """
        if run.number > 0:
            await self._journal.ask(run)
        async with self._lock(run.accepted.session_id):
            session = self.last_seen(run) if starts_first else None
        if session is None:
            session = await self.session_of(run)
        if session.place_of(run) is None:
            try:
                if await self.enter(run, is_new=False) is None:
                    return Standing.GONE
            except TerminalError as error:
                log.warning("turn_refused", extra={"turn_id": run.turn_id, "kind": error.kind})
                return Standing.GONE
            session = await self.session_of(run)
        return _standing(session, run)

    async def place_of(self, run: TurnRun) -> QueuedTurn | None:
        """The place of `run`, whose sequence never changes; None if it has none (any more)."""
        if session := self.last_seen(run):
            return session.head
        return (await self.session_of(run)).place_of(run)

    async def end(
        self, run: TurnRun, *, completed: bool = False, stored_up_to: int = 0, merged: Collection[str] = ()
    ) -> None:
        """Take `run`, and the turns `merged` with it, off its queue and start the next one.

        To be repeated until it has returned; harmless twice.
        """
        is_behind = False

        def without(session: Session) -> Session:
            nonlocal is_behind
            is_behind = session.place_of(run) is not None and not (session.head and session.head.is_of(run))
            return session.without(run, completed=completed, stored_up_to=stored_up_to, merged=merged)

        session = await self._change(run, without)
        if not is_behind:
            await self.start_head(session, run.accepted.session_id)

    async def take_up(self, run: TurnRun, *, is_first: bool) -> list[QueuedTurn]:
        """The places of the messages that `run`, which is about to call its model, has taken up.

        `is_first`: what this process saw of the session is enough.
        """
        session = self.last_seen(run) if is_first else await self.session_of(run)
        if session is not None and session.taking(run) is not session:
            session = await self._change(run, lambda now: now.taking(run))
        return session.taken_by(run) if session else []

    async def taken_by(self, run: TurnRun) -> list[QueuedTurn]:
        """The places of the messages that `run` has taken up, as they are now: another replica may have taken them."""
        return (await self.session_of(run)).taken_by(run)

    async def keep_apart(self, run: TurnRun) -> None:
        """Let no other turn take up the message of `run`. Raises TerminalError (kind `merged`) if one has."""

        def changed(session: Session) -> Session:
            check_not_taken(session, run)
            return session.apart(run)

        await self._change(run, changed)

    async def step_aside(self, run: TurnRun) -> None:
        """Let later turns pass while `run` waits for a person. To be repeated until it has returned."""
        session = await self._change(run, lambda session: session.aside(run))
        await self.start_head(session, run.accepted.session_id)

    async def come_back(self, run: TurnRun) -> Standing:
        """Where a run stands about which a person has decided; it goes to the end if others could pass."""
        return _standing(await self._change(run, lambda session: session.returned(run)), run)

    async def drop(self, session_id: str, turn_id: str) -> None:
        """Take a turn off of which there are no facts (any more), and start the head."""

        def without(session: Session) -> Session:
            queue = [turn for turn in session.queue if turn.turn_id != turn_id]
            return session if len(queue) == len(session.queue) else msgspec.structs.replace(session, queue=queue)

        log.error("turn_without_facts", extra={"turn_id": turn_id, "session_id": session_id})
        await self.start_head(await self._change_at(session_id, "", without), session_id)

    async def start_head(self, session: Session, session_id: str) -> None:
        """Start the workflow of the head; one that waits is sent `your_turn`, one that has ended is left alone."""
        head = session.head
        if head is None:
            return
        number = head.run
        if number is None:
            facts = await self._journal.find(head.turn_id)
            number = facts.run.number if facts else 0
        # A pause from now on finds its place in the store, not here.
        self._seen.pop(session_id, None)
        await self._workflows.start_waiting(head.turn_id, number, session_id)

    async def hold(self, run: TurnRun, *, paused: bool) -> Session:
        """Pause or resume the place of `run`; the session then."""

        def changed(session: Session) -> Session:
            place = session.place_of(run)
            check_not_taken(session, run)
            return session if place is None or place.paused is paused else session.with_paused(run, paused=paused)

        return await self._change(run, changed)

    async def _change(self, run: TurnRun, change: Callable[[Session], Session]) -> Session:
        return await self._change_at(run.accepted.session_id, run.accepted.user_id, change)

    async def _change_at(self, session_id: str, user_id: str, change: Callable[[Session], Session]) -> Session:
        async def try_once() -> Session:
            stored = await self.read(session_id, user_id)
            changed = change(stored.value)
            if changed is not stored.value:
                await self._save(session_id, changed, stored.etag)
            return changed

        async with self._lock(session_id):
            return await retry_conflicts(try_once, f"session {session_id!r}")

    async def _save(self, session_id: str, session: Session, etag: str) -> None:
        key, value = session_key(session_id), stored_session(session)
        # On disk before the step that changes it ends, or the request is answered.
        save = Save(key, value, etag=etag or None, first_write=not etag, durable=False)
        self._seen.pop(session_id, None)
        await self._dapr.save_state(save)
        self._see(session_id, session)

    def _see(self, session_id: str, session: Session) -> None:
        self._seen.pop(session_id, None)
        # Without a head nobody asks for it (`last_seen`): most sessions are at rest.
        if session.queue and len(session.queue) + len(session.recent) <= _LONGEST_CACHED:
            self._seen[session_id] = session
            if len(self._seen) > _CACHED_SESSIONS:
                self._seen.popitem(last=False)

    def _lock(self, session_id: str) -> asyncio.Lock:
        return self._locks.setdefault(session_id, asyncio.Lock())
