"""Accepting a message: claim its key, write it down, give it its place in the session (`queue` has the crash table).

A claim holds the message, so that a repeated request can finish what a crash left. Nobody deletes a claim: one that is
void, because its message was refused or is long over, is replaced under its ETag.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from pydantic_core import to_json

from everturn import tracing
from everturn.chat.budget import TokenBudget
from everturn.chat.facts import Accepted, Fact, PastEntry, TurnFacts, TurnRun, decoded
from everturn.chat.journal import Journal
from everturn.chat.maintenance import AbandonedTurns
from everturn.chat.metrics import InFlight
from everturn.chat.queue import SessionQueue
from everturn.chat.session import Session, check_not_busy, check_owner
from everturn.chat.user_index import TOO_MANY_OPEN, UserIndex, UserIndexes
from everturn.contracts.chat import Message, Overlap
from everturn.contracts.fields import new_id, to_wire, utc_now
from everturn.dapr.client import Save, SidecarClient, Versioned, retry_conflicts
from everturn.errors import TerminalError, TransientError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """How a client wants its turn.

    `streamed`: the words of the reply are kept as they come. `run_id`: what the client calls the run. `given`: the
    conversation before the message, in place of the one that is stored.
    """

    streamed: bool = False
    run_id: str = ""
    given: tuple[PastEntry, ...] = ()


DEFAULT_OPTIONS = TurnOptions()


class Claim(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """Which turn a key stands for. The message is as accepted; `fingerprint` is of the body as sent.

    `released`: the message was refused for good, and the key is free again.
    """

    turn_id: str
    user_id: str
    session_id: str
    fingerprint: str
    text: str
    tags: list[str] = msgspec.field(default_factory=list)
    accepted_at: str
    trace: str = ""
    released: bool = False
    streamed: bool = False
    run_id: str = ""
    given: list[PastEntry] = msgspec.field(default_factory=list)
    overlap: str = ""

    def as_run(self) -> TurnRun:
        names = ("user_id", "session_id", "text", "tags", "streamed", "run_id", "given", "trace", "overlap")
        accepted = Accepted(**{name: getattr(self, name) for name in names}, at=self.accepted_at)
        return TurnRun(self.turn_id, 0, accepted)


def claim_key(user_id: str, idempotency_key: str) -> str:
    """Keys count per user; hashed, since both parts may hold any character and any separator."""
    return "claim:" + hashlib.sha256(to_json([user_id, idempotency_key])).hexdigest()


def fingerprint(user_id: str, message: Message, given: Sequence[PastEntry] = ()) -> str:
    """Equal for bodies that mean the same: absent and null are one, and the client's timestamp does not count."""
    session_id = message.metadata.session_id if message.metadata else None
    meaning: list[object] = [user_id, message.text, session_id, message.tags or []]
    if given:
        meaning.append([[entry.role, entry.content] for entry in given])
    if message.metadata and message.metadata.overlap:
        meaning.append(message.metadata.overlap)
    return hashlib.sha256(to_json(meaning)).hexdigest()


@dataclass(eq=False, slots=True)
class Claims:
    """Claims in the state store, each kept for `ttl_s` seconds."""

    _dapr: SidecarClient
    ttl_s: int

    async def find(self, key: str) -> Versioned[Claim] | None:
        item = await self._dapr.get_state(key)
        return None if item is None else Versioned(decoded(item.value, Claim), item.etag)

    async def take(self, key: str, claim: Claim, void: Versioned[Claim] | None = None) -> Claim:
        """Claim `key`, or replace the claim that is `void`. The claim that holds it then: ours, or the first one."""
        seen, is_first = void, True

        async def try_once() -> Claim:
            nonlocal seen, is_first
            if not is_first:
                seen = await self.find(key)
                if seen is not None and (void is None or seen.value.turn_id != void.value.turn_id):
                    return seen.value
            is_first = False
            await self._save(key, claim, seen)
            return claim

        return await retry_conflicts(try_once, "the idempotency key")

    async def release(self, key: str, claim: Claim) -> None:
        """Let `claim` be void, if it still holds the key."""

        async def try_once() -> None:
            seen = await self.find(key)
            if seen is not None and seen.value.turn_id == claim.turn_id:
                await self._save(key, msgspec.structs.replace(seen.value, released=True), seen)

        await retry_conflicts(try_once, "the idempotency key")

    async def _save(self, key: str, claim: Claim, seen: Versioned[Claim] | None) -> None:
        etag, value = seen.etag if seen else None, claim.stored()
        # What is accepted is on disk with the start of its workflow, or when the request is answered.
        save = Save(key, value, etag=etag, first_write=seen is None, ttl_s=self.ttl_s, durable=False)
        await self._dapr.save_state(save)


# What is read before a message is accepted; None if it has to be read again.
_Seen = tuple[Versioned[Session] | None, Versioned[UserIndex] | None]
_UNSEEN: _Seen = (None, None)


@dataclass(eq=False, slots=True)
class Acceptance:
    """Accepts messages.

    `_overlap`: the overlap of a message that does not name one. Raises TerminalError (kinds `forbidden`, `busy`,
    `key_reused`) for what is refused, TransientError if nothing could be accepted now.
    """

    _claims: Claims
    _journal: Journal
    _queue: SessionQueue
    _indexes: UserIndexes
    _abandoned: AbandonedTurns
    _limiter: InFlight
    _budget: TokenBudget | None = None
    _overlap: Overlap = Overlap.QUEUE

    async def accept(
        self, user_id: str, message: Message, idempotency_key: str | None, options: TurnOptions = DEFAULT_OPTIONS
    ) -> TurnFacts:
        """Accept `message` of `user_id` durably; for a key that was used, the turn that it stands for."""
        claim = _new_claim(user_id, message, options, self._overlap)
        if idempotency_key is None:
            self._limiter.refuse_more()
            return await self._enter(claim.as_run(), await self._seen_for(claim), is_new=True)
        key = claim_key(user_id, idempotency_key)
        try:
            # A refused request uses no key up, so what can be refused is refused before the claim.
            self._limiter.refuse_more()
            seen = await self._seen_for(claim)
        except (TerminalError, TransientError):
            found = await self._claims.find(key)
            if found is None or found.value.released:
                raise
            return await self._accept_again(key, found.value, claim)
        holder = await self._claims.take(key, claim)
        if holder.turn_id == claim.turn_id:
            return await self._accept_claimed(key, claim, seen)
        return await self._accept_again(key, holder, claim)

    async def _accept_claimed(self, key: str, claim: Claim, seen: _Seen) -> TurnFacts:
        return await self._enter_claimed(key, claim, claim.as_run(), seen, is_new=True)

    async def _enter_claimed(self, key: str, claim: Claim, run: TurnRun, seen: _Seen, *, is_new: bool) -> TurnFacts:
        try:
            return await self._enter(run, seen, is_new=is_new)
        except (TerminalError, TransientError) as error:
            if isinstance(error, TerminalError) or error.kind == TOO_MANY_OPEN:
                await self._claims.release(key, claim)
            raise

    async def _accept_again(self, key: str, holder: Claim, claim: Claim) -> TurnFacts:
        is_over = self._journal.is_over(holder.accepted_at, utc_now())
        if holder.released or (is_over and await self._journal.find(holder.turn_id) is None):
            found = await self._claims.find(key)
            if found is not None and found.value.turn_id == holder.turn_id:
                holder = await self._claims.take(key, claim, void=found)
            if holder.turn_id == claim.turn_id:
                return await self._accept_claimed(key, claim, _UNSEEN)
        if holder.fingerprint != claim.fingerprint:
            raise TerminalError("this Idempotency-Key was used with another message", kind="key_reused")
        facts = await self._journal.find(holder.turn_id)
        if facts is not None and facts.outcome is not None:
            return facts
        run = facts.run if facts else holder.as_run()
        return await self._enter_claimed(key, holder, run, _UNSEEN, is_new=facts is None)

    async def _enter(self, run: TurnRun, seen: _Seen, *, is_new: bool) -> TurnFacts:
        session, index = seen
        await self._indexes.add(run, index, is_new=is_new)
        place = await self._queue.enter(run, session, is_new=is_new and session is not None)
        if place is None:
            if is_new:  # a slow repeat: it has just given an ended turn the time of one that runs
                await self._journal.close(run)
            return await self._journal.get(run.turn_id)
        if not (is_new and self._queue.last_seen(run)):
            await self._see_head(run)
        return TurnFacts(run)

    async def _see_head(self, run: TurnRun) -> None:
        """The turn before may have lost its workflow; if that cannot be checked now, this one only starts later."""
        try:
            await self._abandoned.ensure_head_runs(run)
        except TransientError as error:
            log.warning("head_not_seen", extra={"turn_id": run.turn_id, "reason": error.message})

    async def _seen_for(self, claim: Claim) -> _Seen:
        """The session, if it is the user's and has room, and the user's index, if that has, and the user tokens."""
        run = claim.as_run()
        if self._budget:
            await self._budget.check(claim.user_id)
        session, index = await asyncio.gather(
            self._queue.read_settled(claim.session_id, claim.user_id), self._indexes.read_with_room(claim.user_id)
        )
        check_owner(session.value, claim.session_id, claim.user_id)
        if run.overlap == Overlap.REJECT and session.value.head:
            await self._see_head(run)  # it may have ended
            session = await self._queue.read_settled(claim.session_id, claim.user_id)
        check_not_busy(session.value, run)
        session.value.appended(run)
        return session, index


def _new_claim(user_id: str, message: Message, options: TurnOptions, default: Overlap) -> Claim:
    session_id = message.metadata.session_id if message.metadata else None
    overlap = (message.metadata and message.metadata.overlap) or default
    if overlap is Overlap.MERGE and options.given:
        overlap = Overlap.QUEUE  # another turn has another conversation before it
    return Claim(
        turn_id=new_id(),
        user_id=user_id,
        session_id=session_id or new_id(),
        fingerprint=fingerprint(user_id, message, options.given),
        text=message.text,
        tags=message.tags or [],
        accepted_at=to_wire(utc_now()),
        streamed=options.streamed,
        run_id=options.run_id,
        given=list(options.given),
        overlap="" if overlap is Overlap.QUEUE else overlap.value,
        trace=tracing.current(),
    )
