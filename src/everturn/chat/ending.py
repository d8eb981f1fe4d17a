"""The end of a turn, in an order that may break off anywhere and be done again: its event is published, or handed to a
workflow that tries for longer; its outcome is written; it leaves the queue, and the next one starts.

A repetition finds what is done: the event has a stable id, the outcome is a fact, a place is taken away once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

import msgspec

from everturn import tracing
from everturn.chat.facts import Cancelled, Failed, Outcome, Reply, TurnRun, Verdict
from everturn.chat.journal import Journal
from everturn.chat.metrics import ChatMetrics
from everturn.chat.queue import SessionQueue
from everturn.chat.waiting import EndSignals
from everturn.contracts.chat import TurnStatus
from everturn.contracts.events import (
    CHAT_APP_ID,
    CONVERSATIONS_TOPIC,
    DEAD_LETTERS_TOPIC,
    PUBSUB_NAME,
    ConversationUpdated,
    MergedMessage,
)
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.client import SidecarClient
from everturn.errors import EverturnError, TransientError

log = logging.getLogger(__name__)

# contracts.md, "What the second round adds": the publish is deferred after two seconds.
_PUBLISH_S = 2.0
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)


# Starts the delivery of the event of an ended run, with the sequence of its turn.
DeliverLater = Callable[[TurnRun, int], Awaitable[None]]


@dataclass(eq=False, slots=True)
class Ending:
    """Ends runs. Raises TransientError if the store or the workflow engine is away: then it is to be repeated."""

    _dapr: SidecarClient
    _journal: Journal
    _queue: SessionQueue
    _deliver_later: DeliverLater
    _metrics: ChatMetrics
    _signals: EndSignals
    # While it is away, each turn tries once: many would hold up their replies for nothing.
    _broker_is_away: bool = field(default=False, init=False)

    async def finish(self, run: TurnRun, verdict: Verdict, *, attempt: int = 1) -> None:
        """End `run` as its verdict says, and let the next turn run. `attempt`: that of the step which ends it."""
        place = await self._queue.place_of(run)
        outcome = None if place else await self._journal.outcome(run)
        if outcome is None:
            # Without a place and an outcome it has never been entered.
            sequence = place.sequence if place else 0
            await self._publish_or_defer(run, verdict, sequence)
            ours = Outcome(status=ended_status(verdict), at=to_wire(utc_now()), sequence=sequence, attempt=attempt)
            outcome = await self._journal.write(run.key("outcome"), ours, durable=False)
            if outcome is ours:
                self._count(run, verdict, ours)
                _trace(run, ours)
        self._signals.send(run.instance_id)
        await self.leave(run, verdict, outcome)
        await self._journal.close(run)

    def stopped(self, run: TurnRun, taken: Iterable[str]) -> None:
        """End the wait for `run`, and for the turns whose messages it has `taken` up: a person decides first."""
        for instance_id in (run.instance_id, *taken):
            self._signals.send(instance_id)

    async def leave(self, run: TurnRun, verdict: Verdict | None, outcome: Outcome) -> None:
        """Take an ended run off its queue, and start the next one."""
        confirmed = verdict.stored_up_to if isinstance(verdict, Reply) else 0
        is_completed = outcome.status is TurnStatus.COMPLETED
        merged = await self._end_merged(run, verdict, outcome) if verdict else []
        ids = [other.turn_id for other in merged]
        await self._queue.end(run, completed=is_completed, stored_up_to=confirmed, merged=ids)
        for other in merged:
            await self._journal.close(other)

    async def _end_merged(self, run: TurnRun, verdict: Verdict, outcome: Outcome) -> list[TurnRun]:
        """End the turns whose messages `run` has taken up, as itself; those that a reply does not answer run later."""
        taken = verdict.merged if isinstance(verdict, Reply) else await self._queue.taken_by(run)
        ended = []
        for place in taken:
            other = await self._journal.run(place.turn_id, 0)
            if other is not None:
                await self._end_as(run, verdict, outcome, other, place.sequence)
                ended.append(other)
        return ended

    async def _end_as(self, run: TurnRun, verdict: Verdict, outcome: Outcome, other: TurnRun, sequence: int) -> None:
        copy = msgspec.structs.replace(verdict, merged_into=run.turn_id, words=-1)
        if isinstance(copy, Reply):
            copy = msgspec.structs.replace(copy, usage={}, last_call={}, place=(0, 0), merged=[])
        theirs = await self._journal.write_verdict(other, copy)
        if await self._journal.outcome(other) is None:
            if isinstance(theirs, Failed):
                await self._publish_or_defer(other, theirs, sequence)
            ours = Outcome(status=ended_status(theirs), at=outcome.at, sequence=sequence)
            if await self._journal.write(other.key("outcome"), ours, durable=False) is ours:
                self._count(other, theirs, ours)
                _trace(other, ours)
        self._signals.send(other.instance_id)

    async def deliver(self, run: TurnRun, sequence: int | None) -> None:
        """Publish the event of an ended run, once. Raises EverturnError if that does not work."""
        verdict = await self._journal.verdict(run)
        if sequence is None:
            outcome = await self._journal.outcome(run)
            place = None if outcome else await self._queue.place_of(run)
            sequence = outcome.sequence if outcome else place.sequence if place else None
        if verdict is None or sequence is None:
            log.error("event_without_facts", extra={"turn_id": run.turn_id})
            return
        await self._publish(run, verdict, sequence)

    async def _publish_or_defer(self, run: TurnRun, verdict: Verdict, sequence: int) -> None:
        pauses = () if self._broker_is_away else _PAUSES_S
        try:
            async with asyncio.timeout(_PUBLISH_S):
                for pause_s in pauses:
                    try:
                        await self._publish(run, verdict, sequence)
                    except TransientError:
                        await asyncio.sleep(pause_s)
                    else:
                        return
                await self._publish(run, verdict, sequence)
                self._broker_is_away = False
        except (TimeoutError, EverturnError) as error:
            self._broker_is_away = True
            await self._deliver_later(run, sequence)
            reason = error.message if isinstance(error, EverturnError) else "timeout"
            log.warning("event_deferred", extra={"turn_id": run.turn_id, "reason": reason})

    async def _publish(self, run: TurnRun, verdict: Verdict, sequence: int) -> None:
        match verdict:
            case Reply():
                event = conversation_event(run, verdict, sequence)
                await self._dapr.publish(PUBSUB_NAME, CONVERSATIONS_TOPIC, event, durable=False)
            case Failed():
                letter = dead_letter(run, verdict)
                await self._dapr.publish(PUBSUB_NAME, DEAD_LETTERS_TOPIC, letter, durable=False)
            case Cancelled():
                pass
            case _:
                assert_never(verdict)

    def _count(self, run: TurnRun, verdict: Verdict, outcome: Outcome) -> None:
        began, ended = datetime.fromisoformat(run.accepted.at), datetime.fromisoformat(outcome.at)
        seconds = (ended - began).total_seconds()
        self._metrics.turn_ended(outcome.status, seconds)
        ids: dict[str, Any] = {"turn_id": run.turn_id, "session_id": run.accepted.session_id}
        if isinstance(verdict, Failed):
            self._metrics.turn_failed(verdict.step, verdict.kind)
            fault = {"step": verdict.step, "kind": verdict.kind, "attempts": verdict.attempts}
            log.error("turn_failed", extra={**ids, **fault})
        log.info("turn_ended", extra={**ids, "status": outcome.status, "seconds": round(seconds, 3)})


def ended_status(verdict: Verdict) -> TurnStatus:
    match verdict:
        case Reply():
            return TurnStatus.COMPLETED
        case Failed():
            return TurnStatus.FAILED
        case Cancelled():
            return TurnStatus.CANCELLED
        case _:
            assert_never(verdict)


def _trace(run: TurnRun, outcome: Outcome) -> None:
    tracing.finished(
        CHAT_APP_ID,
        "turn",
        parent=run.accepted.trace,
        begun=datetime.fromisoformat(run.accepted.at),
        instance=run.instance_id,
        attributes={"everturn.turn_id": run.turn_id, "everturn.status": outcome.status.value},
    )


def conversation_event(run: TurnRun, reply: Reply, sequence: int) -> Mapping[str, Any]:
    """The CloudEvent of an answered turn (CloudEvents 1.0, JSON format). Its id is the turn's, whenever it is sent."""
    data = ConversationUpdated(
        event_type="ConversationUpdated",
        user_id=run.accepted.user_id,
        session_id=run.accepted.session_id,
        user_message=run.accepted.text,
        assistant_reply=reply.text,
        turn_id=run.turn_id,
        sequence=sequence,
        accepted_at=run.accepted.at,
        occurred_at=reply.at,
        merged=[MergedMessage.model_construct(**msgspec.to_builtins(one)) for one in reply.merged] or None,
    )
    event = _cloud_event(run.turn_id, data.event_type, reply.at, data.model_dump(mode="json", exclude_none=True))
    trace = tracing.inside(run.accepted.trace, run.instance_id)
    return {**event, tracing.HEADER: trace} if trace else event


def dead_letter(run: TurnRun, failure: Failed) -> Mapping[str, Any]:
    """The CloudEvent of a turn that failed for good, under an id that never changes."""
    data = {
        "event_type": "TurnFailed",
        "turn_id": run.turn_id,
        "user_id": run.accepted.user_id,
        "session_id": run.accepted.session_id,
        "step": failure.step,
        "kind": failure.kind,
        "attempts": failure.attempts,
        "failed_at": failure.at,
    }
    return _cloud_event(f"{run.instance_id}.failed", "TurnFailed", failure.at, data)


def _cloud_event(event_id: str, event_type: str, at: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "chat-service",
        "type": event_type,
        "time": at,
        "datacontenttype": "application/json",
        "data": data,
    }
