"""Accepting a message: claim its key, write the turn, give it its place in the session, start it.

After each of these writes a crash leaves something that a repeated request, or the next message of the session, can
finish: a claim without a turn, a record without a place, a place without a workflow.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from everturn.chat.claims import Claim, Claims, claim_key, fingerprint
from everturn.chat.records import TurnRecord, save_record
from everturn.chat.services import TurnServices
from everturn.chat.session_store import MAX_CONFLICTS, StoredSession
from everturn.chat.sessions import Session, check_owner, save_session
from everturn.contracts.chat import Message
from everturn.contracts.ids import new_id
from everturn.contracts.times import to_wire, utc_now
from everturn.errors import ConflictError, TerminalError, TransientError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that has its place. `is_new`: this request brought it, not an earlier one with the same key."""

    record: TurnRecord
    is_new: bool


class Intake:
    """Accepts messages.

    Raises TerminalError (kinds `forbidden`, `key_reused`) for what is refused, TransientError where nothing could be
    accepted now.
    """

    def __init__(self, services: TurnServices) -> None:
        self._services = services
        self._claims = Claims(services.dapr)

    async def accept(self, message: Message, idempotency_key: str | None) -> Accepted:
        """Accept `message` durably; for a key that was used, the turn that it stands for."""
        claim = _new_claim(message)
        if idempotency_key is None:
            self._services.attempts.refuse_new()
            return await self._accept_new(claim, known_new=True)
        key = claim_key(message.user_id, idempotency_key)
        holder, seen = await self._claims.find(key), None
        if holder is None:
            self._services.attempts.refuse_new()
            seen = await self._refuse_early(claim)
            holder = await self._claims.take(key, claim, ttl_s=self._claim_ttl_s())
        if holder.turn_id == claim.turn_id:
            return await self._accept_claimed(key, claim, seen)
        return await self._accept_again(key, holder, claim)

    async def _accept_claimed(self, key: str, claim: Claim, seen: StoredSession | None = None) -> Accepted:
        try:
            return await self._accept_new(claim, known_new=True, seen=seen)
        except TerminalError:
            await self._claims.release(key)
            raise

    async def _accept_again(self, key: str, holder: Claim, claim: Claim) -> Accepted:
        if holder.fingerprint != claim.fingerprint:
            raise TerminalError("this Idempotency-Key was used with another message", kind="key_reused")
        found = await self._services.records.find(holder.turn_id)
        if found is None and self._has_expired(holder):
            await self._claims.release(key)
            return await self._accept_claimed(key, await self._claims.take(key, claim, ttl_s=self._claim_ttl_s()))
        if found is not None and found.record.outcome is not None:
            return Accepted(found.record, is_new=False)
        accepted = await self._accept_new(holder, known_new=False)
        return Accepted(accepted.record, is_new=False)

    async def _accept_new(self, claim: Claim, *, known_new: bool, seen: StoredSession | None = None) -> Accepted:
        """Give the claimed turn its record and its place, unless it has them, and start it if it is the session's head.

        `known_new`: nobody else can know of this turn yet, so its record need not be looked for the first time. `seen`
        is the session as it was read before: where it has changed, the write says so.
        """
        for _ in range(MAX_CONFLICTS):
            # The session first: had the turn ended in between, its record read after it says so.
            stored, seen = seen or await self._services.sessions.get(claim.session_id, claim.user_id), None
            check_owner(stored.session, claim.session_id, claim.user_id)
            found = None if known_new else await self._services.records.find(claim.turn_id)
            known_new = False
            if found is not None and found.record.outcome is not None:
                return Accepted(found.record, is_new=False)
            if found is not None and stored.session.place_of(claim.turn_id) is not None:
                await self._services.hand_over.start_head(stored.session, perhaps_started=True)
                return Accepted(found.record, is_new=False)
            accepted = await self._enter(claim, stored, found.etag if found else None)
            if accepted is not None:
                return accepted
        raise TransientError("this session is very busy; try again", kind="conflict", retry_after_s=1)

    async def _enter(self, claim: Claim, stored: StoredSession, record_etag: str | None) -> Accepted | None:
        session, place = stored.session.appended(claim.turn_id)
        record = TurnRecord(
            turn_id=claim.turn_id,
            user_id=claim.user_id,
            session_id=claim.session_id,
            sequence=place.sequence,
            text=claim.text,
            tags=claim.tags,
            accepted_at=claim.accepted_at,
        )
        saves = [save_record(record, etag=record_etag), save_session(claim.session_id, session, stored.etag)]
        try:
            await self._services.dapr.transact(saves)
        except ConflictError:
            return None
        await self._start(record, session, is_head=session.head == place)
        return Accepted(record, is_new=True)

    async def _start(self, record: TurnRecord, session: Session, *, is_head: bool) -> None:
        """The turn is accepted: that the workflow engine is away now only delays it. Who waits for it tries again."""
        try:
            if is_head:
                await self._services.instances.start(record)
            else:
                # The turns before may have lost their workflow to a crash; they would hold this one for ever.
                await self._services.hand_over.start_head(session, perhaps_started=True)
        except TransientError as error:
            log.warning("turn_not_started", extra={"turn_id": record.turn_id, "reason": error.message})

    async def _refuse_early(self, claim: Claim) -> StoredSession:
        """A refused request uses no key up, so what can be refused is refused before the claim. The session then."""
        stored = await self._services.sessions.get(claim.session_id, claim.user_id)
        check_owner(stored.session, claim.session_id, claim.user_id)
        stored.session.appended(claim.turn_id)
        return stored

    def _claim_ttl_s(self) -> int:
        """Longer than the record is kept, which is counted from the end of the turn."""
        return int(timedelta(days=2 * self._services.settings.keep_turns_days).total_seconds())

    def _has_expired(self, claim: Claim) -> bool:
        age = utc_now() - datetime.fromisoformat(claim.accepted_at)
        return age > timedelta(days=self._services.settings.keep_turns_days)


def _new_claim(message: Message) -> Claim:
    session_id = message.metadata.session_id if message.metadata else None
    return Claim(
        turn_id=new_id(),
        user_id=message.user_id,
        session_id=session_id or new_id(),
        fingerprint=fingerprint(message),
        text=message.text,
        tags=message.tags or [],
        accepted_at=to_wire(utc_now()),
    )
