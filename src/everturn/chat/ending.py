"""The end of a turn: its outcome and its leaving the queue are one request; then the session's next turn starts."""

import logging
from datetime import datetime, timedelta

from everturn.chat.records import Outcome, TurnRecord, save_record
from everturn.chat.services import TurnServices
from everturn.chat.session_store import MAX_CONFLICTS
from everturn.chat.sessions import Session, save_session
from everturn.contracts.chat import Failure, TurnStatus
from everturn.contracts.times import to_wire, utc_now
from everturn.errors import ConflictError, TransientError
from everturn.sidecar.client import Save

log = logging.getLogger(__name__)


async def end_turn_in_session(
    services: TurnServices,
    turn_id: str,
    status: TurnStatus,
    *,
    step: str | None = None,
    error: Failure | None = None,
    instance_id: str | None = None,
) -> None:
    """Give the turn its outcome, unless it has one, and let the next one of its session go.

    The record is written before the session: a crash between leaves an ended turn at the head, and whoever ends or
    looks at it again takes it off. With `instance_id` only the run by that instance is ended: a late end of a run does
    not end the rerun.
    """
    outcome = Outcome(status=status, at=to_wire(utc_now()), step=step, error=error)
    for _ in range(MAX_CONFLICTS):
        ended = await _try_to_end(services, turn_id, outcome, instance_id)
        if ended is not None:
            break
    else:
        raise TransientError(f"turn {turn_id!r} is changed too often at once", kind="conflict")
    session, was_new = ended
    await services.hand_over.start_head(session, perhaps_started=not was_new)


async def _try_to_end(
    services: TurnServices, turn_id: str, outcome: Outcome, instance_id: str | None
) -> tuple[Session, bool] | None:
    found = await services.records.get(turn_id)
    record = found.record
    stored = await services.sessions.get(record.session_id, record.user_id)
    if record.outcome is None and instance_id not in (None, record.instance_id):
        return stored.session, False
    completed = (record.outcome or outcome).status is TurnStatus.COMPLETED
    session = stored.session.without(turn_id, completed=completed, stored_up_to=record.stored_up_to)
    saves: list[Save] = []
    if record.outcome is None:
        ended = record.model_copy(update={"outcome": outcome})
        saves.append(save_record(ended, etag=found.etag, ttl_s=record_ttl_s(services, ended, utc_now())))
    if session is not stored.session:
        saves.append(save_session(record.session_id, session, stored.etag))
    if saves:
        try:
            await services.dapr.transact(saves)
        except ConflictError:
            return None
    if record.outcome is None:
        _count(services, record, outcome)
    return session, record.outcome is None


def record_ttl_s(services: TurnServices, record: TurnRecord, now: datetime) -> int:
    """Seconds for which the record of an ended turn is still kept; at least 1, since 0 would mean for ever."""
    ended = datetime.fromisoformat(record.outcome.at) if record.outcome else now
    kept_until = ended + timedelta(days=services.settings.keep_turns_days)
    return max(1, int((kept_until - now).total_seconds()))


def _count(services: TurnServices, record: TurnRecord, outcome: Outcome) -> None:
    seconds = (datetime.fromisoformat(outcome.at) - datetime.fromisoformat(record.accepted_at)).total_seconds()
    services.metrics.turn_ended(outcome.status, seconds)
    if outcome.step is not None and outcome.error is not None:
        services.metrics.turn_failed(outcome.step, outcome.error.kind)
    ids = {"turn_id": record.turn_id, "session_id": record.session_id, "status": outcome.status}
    log.info("turn_ended", extra={**ids, "seconds": round(seconds, 3)})
