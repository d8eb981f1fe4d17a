"""Turns as the release before stored them, all under one key (`turn:{id}`), read as facts."""

from typing import Any

import msgspec

from everturn.chat.facts import Accepted, Cancelled, Failed, Outcome, Reply, TurnFacts, TurnRun, Verdict
from everturn.contracts.chat import Step, TurnStatus
from everturn.errors import TransientError


class Record(msgspec.Struct, frozen=True):
    """A turn as the release before stored it: all of it under one key. `run` counts from 1."""

    turn_id: str
    user_id: str
    session_id: str
    sequence: int
    text: str
    accepted_at: str
    tags: list[str] = []
    run: int = 1
    stored_up_to: int = 0
    reply: dict[str, Any] | None = None
    cancel_requested: bool = False
    outcome: dict[str, Any] | None = None
    past_steps: list[dict[str, Any]] = []
    purged: bool = False


def facts_of(value: Any, turn_id: str) -> TurnFacts | None:
    """A record of the release before as facts; None if `value` is none of this turn."""
    if not isinstance(value, dict) or value.get("turn_id") != turn_id:
        return None
    try:
        record = msgspec.convert(value, Record, strict=False)
    except msgspec.ValidationError as error:
        raise TransientError(f"the record of turn {turn_id!r} cannot be read", kind="unreadable") from error
    accepted = Accepted(
        user_id=record.user_id,
        session_id=record.session_id,
        text=record.text,
        tags=record.tags,
        at=record.accepted_at,
    )
    past = [Step.model_validate(step) for step in record.past_steps]
    return TurnFacts(
        run=TurnRun(turn_id, record.run - 1, accepted),
        verdict=_verdict_of(record),
        outcome=_outcome_of(record),
        steps=past if record.purged else None,
        past_steps=[] if record.purged else past,
    )


def _verdict_of(record: Record) -> Verdict | None:
    status = (record.outcome or {}).get("status")
    if record.reply is not None and status in (None, TurnStatus.COMPLETED):
        return Reply(
            text=record.reply["text"],
            model=record.reply["model"],
            at=record.reply["at"],
            degraded=record.reply.get("degraded", []),
            stored_up_to=record.stored_up_to,
        )
    if status == TurnStatus.FAILED and record.outcome is not None:
        error = record.outcome.get("error") or {"kind": "unknown", "message": "it failed"}
        step = record.outcome.get("step") or "fetch_context"
        return Failed(step=step, attempts=1, kind=error["kind"], message=error["message"], at=record.outcome["at"])
    if status == TurnStatus.CANCELLED or record.cancel_requested:
        return Cancelled(at=(record.outcome or {}).get("at", record.accepted_at))
    return None


def _outcome_of(record: Record) -> Outcome | None:
    if record.outcome is None:
        return None
    status = TurnStatus(record.outcome["status"])
    return Outcome(status=status, at=record.outcome["at"], sequence=record.sequence)
