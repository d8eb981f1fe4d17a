"""The facts of a turn: each is written once, under a key of its own, and never changed.

A first write decides: a second writer finds what is there and uses it (`accepted` needs none: only the acceptance of
its random turn id writes it). So a fact can be kept in memory without asking whether it still holds, and no step has to
read before it writes. First writes go singly: in a transaction Redis drops them, and keeps any subset of it. Records of
the release before (`turn:{id}`) are read as facts.

Facts end by their time to live, `accepted` first: a turn without it is unknown. It gets its time when the turn ends, so
a turn that waits for long loses nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import msgspec

from everturn.chat.facts import (
    Accepted,
    Context,
    Fact,
    KeptSteps,
    Outcome,
    Prompt,
    Refused,
    Reply,
    RunAsked,
    TurnFacts,
    TurnRun,
    Verdict,
    accepted_key,
    asked_key,
    decoded,
    prompt_key,
    record_key,
    run_key,
)
from everturn.contracts.chat import Step, TurnStatus, merged_steps
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.client import Save, SidecarClient
from everturn.errors import ConflictError, TerminalError, TransientError

# Facts that a process keeps in memory, and the longest text among them, in characters.
_CACHED_FACTS = 4_000
_LONGEST_CACHED = 50_000
# Seconds between tries of a write that the store refuses though nobody was first; about five in all.
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
# For facts of a turn that has not ended: ten times as long as an ended one is kept, at most what fits into 32 bits.
_UNENDED_TIMES = 10
_LONGEST_TTL_S = 2**31 - 1
_MARGIN = timedelta(days=1)

F = TypeVar("F", bound=Fact)
# From a stored value and the id of a turn; None if it is no record of that turn.
OfRecord = Callable[[Any, str], TurnFacts | None]
CloseWords = Callable[["Journal", TurnRun], Awaitable[int]]


class Journal:
    """Facts in the state store; each raises TransientError if the store cannot be reached.

    `of_record` reads what the release before stored of a turn: `old_records.facts_of`. `close_words`: that of
    `streamed_words`.
    """

    def __init__(self, dapr: SidecarClient, keep_days: float, of_record: OfRecord, close_words: CloseWords) -> None:
        self._dapr = dapr
        self._of_record = of_record
        self._close_words = close_words
        self.keep = timedelta(days=keep_days)
        self._cache: OrderedDict[str, Any] = OrderedDict()

    async def write(self, key: str, fact: F, kind: Any = None, *, ttl_s: int | None = None, durable: bool = True) -> F:
        """Write `fact` first under `key`; what is there then: `fact`, or what was first.

        Not `durable`: as a `Save` that is not; only for what nobody outside sees before a later write.
        Raises TransientError (kind `store_refuses`) if the store refuses the write and nobody was first.
        """
        save = Save(key, fact.stored(), first_write=True, ttl_s=ttl_s or self.ttl_s(fact), durable=durable)
        for pause_s in (*_PAUSES_S, None):
            try:
                await self._dapr.save_state(save)
            except ConflictError:
                # On Redis a lost first write looks like any trouble of the store: what is there decides.
                there = await self._read(key, kind or type(fact))
                # Ours: the answer to the write was lost, and a layer below wrote again.
                if fact.is_one_writers and there == fact:
                    break
                if there is not None:
                    return cast("F", there)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
            else:
                break
        else:
            raise TransientError(f"the state store refuses to write {key!r}", kind="store_refuses")
        self._remember(key, fact)
        return fact

    async def accept(self, run: TurnRun) -> None:
        """Write down the message of `run`, always the same one.

        No first write: `close` and `open_again` change its time to live, which Redis refuses for a key made by one.
        """
        key = accepted_key(run.turn_id)
        await self._dapr.save_state(Save(key, run.accepted.stored(), ttl_s=self.ttl_s(run.accepted), durable=False))
        self._remember(key, run.accepted)

    async def refuse(self, run: TurnRun) -> None:
        """Write down that the message of `run` was refused a place."""
        await self.write(run.key("refused"), Refused(at=to_wire(utc_now())))

    async def is_refused(self, run: TurnRun) -> bool:
        return await self._read(run.key("refused"), Refused) is not None

    async def forget(self, run: TurnRun) -> None:
        """Take back what `accept` wrote, of a message that is refused: its turn is unknown then."""
        self._cache.pop(accepted_key(run.turn_id), None)
        await self._dapr.transact([], deletes=[accepted_key(run.turn_id)])

    async def keep_prompt(self, digest: str, value: Any) -> None:
        """Keep a part of what models are asked. It is written again each day, so it outlives the turns that name it."""
        key, now = prompt_key(digest), utc_now()
        kept: Prompt | None = self._cache.get(key)
        if kept is not None and now - datetime.fromisoformat(kept.at) < _MARGIN:
            return
        fact = Prompt(value=value, at=to_wire(now))
        await self._dapr.save_state(Save(key, fact.stored(), ttl_s=_seconds(self.keep + 2 * _MARGIN), durable=False))
        self._remember(key, fact)

    async def ask(self, run: TurnRun) -> None:
        """Write down that this run, which is not the turn's first, was asked for."""
        await self.write(asked_key(run.turn_id, run.number), RunAsked(at=to_wire(utc_now())))

    def ended_here(self, run: TurnRun) -> Outcome | None:
        """The outcome of `run`, if this process knows it."""
        return cast("Outcome | None", self._cache.get(run.key("outcome")))

    def knows(self, key: str) -> bool:
        return key in self._cache

    async def write_verdict(self, run: TurnRun, verdict: Verdict) -> Verdict:
        """Give the run its verdict; the one that was first."""
        if run.accepted.streamed and verdict.words < 0:
            verdict = msgspec.structs.replace(verdict, words=await self._close_words(self, run))
        legacy = await self.legacy(run)
        return (legacy and legacy.verdict) or await self.write(run.key("verdict"), verdict, Verdict, durable=False)

    async def verdict(self, run: TurnRun) -> Verdict | None:
        found: Verdict | None = await self._read(run.key("verdict"), Verdict)
        if found is None and (legacy := await self.legacy(run)):
            return legacy.verdict
        return found

    async def outcome(self, run: TurnRun) -> Outcome | None:
        found: Outcome | None = await self._read(run.key("outcome"), Outcome)
        if found is None and (legacy := await self.legacy(run)):
            return legacy.outcome
        return found

    async def find(self, turn_id: str) -> TurnFacts | None:
        """The latest run of a turn; None if there is no such turn."""
        found = await self.read_all(
            {accepted_key(turn_id): Accepted, record_key(turn_id): None, **self._of_run(turn_id, 0)}
        )
        accepted: Accepted | None = found.get(accepted_key(turn_id))
        if accepted is not None:
            facts = TurnFacts(TurnRun(turn_id, 0, accepted))
        elif (legacy := self._of_record(found.get(record_key(turn_id)), turn_id)) is not None:
            facts = legacy
            found |= await self.read_all(self._of_run(turn_id, facts.run.number))
        else:
            return None
        while True:
            if _is_torn(facts.run, found):
                found |= await self.read_all(self._of_run(turn_id, facts.run.number))
            facts = _with(facts, found)
            number = facts.run.number + 1
            if asked_key(turn_id, number) not in found:
                return facts
            past = merged_steps(facts.past_steps, facts.steps or [])
            facts = TurnFacts(TurnRun(turn_id, number, facts.run.accepted), past_steps=past)
            found = await self.read_all(self._of_run(turn_id, number))

    async def get(self, turn_id: str) -> TurnFacts:
        """As `find`. Raises TerminalError (kind `not_found`) for an unknown turn."""
        facts = await self.find(turn_id)
        if facts is None:
            raise unknown_turn(turn_id)
        return facts

    async def run(self, turn_id: str, number: int) -> TurnRun | None:
        """A run of a turn that a workflow names; None if the turn is not known (any more)."""
        found = await self.read_all({accepted_key(turn_id): Accepted, record_key(turn_id): None})
        accepted: Accepted | None = found.get(accepted_key(turn_id))
        if accepted is None and (legacy := self._of_record(found.get(record_key(turn_id)), turn_id)):
            accepted = legacy.run.accepted
        return TurnRun(turn_id, number, accepted) if accepted else None

    async def context(self, run: TurnRun) -> Context | None:
        return cast("Context | None", await self._read(run.key("context"), Context))

    async def completed(self, turns: Sequence[tuple[str, int]]) -> list[tuple[Accepted, Reply, str]]:
        """Message, reply and id of those of the turns (id and run) that have a reply, in their order."""
        keys = {key: kind for turn_id, number in turns for key, kind in _of_completed(turn_id, number).items()}
        found = await self.read_all(keys)
        texts = []
        for turn_id, number in turns:
            accepted, reply = found.get(accepted_key(turn_id)), found.get(run_key(turn_id, number, "verdict"))
            if accepted is None and (legacy := self._of_record(found.get(record_key(turn_id)), turn_id)):
                accepted, reply = legacy.run.accepted, reply or legacy.verdict
            if accepted is not None and isinstance(reply, Reply):
                texts.append((accepted, reply, turn_id))
        return texts

    async def close(self, run: TurnRun) -> None:
        """Give `accepted` of an ended run its time to live. Done twice it changes nothing."""
        self._cache.pop(run.key("context"), None)
        await self._dapr.save_state(await self._kept(run, _seconds(self.keep)))

    async def open_again(self, run: TurnRun) -> None:
        """Remove the time to live of a turn that is run again."""
        await self._dapr.save_state(await self._kept(run, -1))

    async def _kept(self, run: TurnRun, ttl_s: int) -> Save:
        record = await self._record(run.turn_id)
        if record is None:
            return Save(accepted_key(run.turn_id), run.accepted.stored(), ttl_s=ttl_s, durable=False)
        return Save(record_key(run.turn_id), record, ttl_s=ttl_s, durable=False)

    def is_over(self, accepted_at: str, now: datetime) -> bool:
        """Whether what was accepted then is older than turns are kept."""
        return now - datetime.fromisoformat(accepted_at) > self.keep

    def _of_run(self, turn_id: str, number: int) -> dict[str, Any]:
        """What `find` reads of a run, by key: only a failed one can have been run again."""
        kinds = {"verdict": Verdict, "outcome": Outcome, "steps": KeptSteps}
        keys = {run_key(turn_id, number, fact): kind for fact, kind in kinds.items()}
        outcome: Outcome | None = self._cache.get(run_key(turn_id, number, "outcome"))
        if outcome is not None and outcome.status is not TurnStatus.FAILED:
            return keys
        return {**keys, asked_key(turn_id, number + 1): RunAsked}

    def ttl_s(self, fact: Fact) -> int:
        if isinstance(fact, Accepted | RunAsked):
            return _seconds(self.keep * _UNENDED_TIMES)
        return _seconds(self.keep + _MARGIN)

    async def _read(self, key: str, kind: Any) -> Any:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        item = await self._dapr.get_state(key)
        return None if item is None else self._decoded(key, item.value, kind)

    async def read_all(self, keys: dict[str, Any]) -> dict[str, Any]:
        """What is stored under `keys`; a kind of None is a record of the release before."""
        found = {key: self._cache[key] for key in keys if key in self._cache}
        is_ours = any(key.endswith(":accepted") for key in found)
        wanted = [key for key, kind in keys.items() if key not in found and not (kind is None and is_ours)]
        items = await self._dapr.get_states(wanted) if wanted else {}
        for key, item in items.items():
            found[key] = item.value if keys[key] is None else self._decoded(key, item.value, keys[key])
        return found

    async def _record(self, turn_id: str) -> dict[str, Any] | None:
        """What the release before stored of a turn; None if this one accepted it."""
        if accepted_key(turn_id) in self._cache:
            return None
        found = await self.read_all({accepted_key(turn_id): Accepted, record_key(turn_id): None})
        return None if accepted_key(turn_id) in found else found.get(record_key(turn_id))

    async def legacy(self, run: TurnRun) -> TurnFacts | None:
        """What the record of the release before has of this run."""
        record = await self._record(run.turn_id)
        facts = None if record is None else self._of_record(record, run.turn_id)
        return facts if facts is not None and facts.run.number == run.number else None

    def _decoded(self, key: str, value: Any, kind: Any) -> Any:
        fact = decoded(value, kind)
        self._remember(key, fact)
        return fact

    def _remember(self, key: str, fact: Fact) -> None:
        text = getattr(fact, "text", None) or ""
        if (
            fact.is_cached
            and len(text) <= _LONGEST_CACHED
            and not (isinstance(fact, Context) and _size(fact) > _LONGEST_CACHED)
        ):
            self._cache[key] = fact
            if len(self._cache) > _CACHED_FACTS:
                self._cache.popitem(last=False)


def unknown_turn(turn_id: str) -> TerminalError:
    return TerminalError(f"no turn {turn_id!r}", kind="not_found")


def _of_completed(turn_id: str, number: int) -> dict[str, Any]:
    return {
        accepted_key(turn_id): Accepted,
        run_key(turn_id, number, "verdict"): Verdict,
        record_key(turn_id): None,
    }


def _is_torn(run: TurnRun, found: dict[str, Any]) -> bool:
    """Whether something is there, and what was written before it is not: Redis reads many keys at different moments."""
    is_ended, is_asked = run.key("outcome") in found, asked_key(run.turn_id, run.number + 1) in found
    return (is_ended and run.key("verdict") not in found) or (is_asked and run.key("steps") not in found)


def _with(facts: TurnFacts, found: dict[str, Any]) -> TurnFacts:
    key = facts.run.key
    kept: KeptSteps | None = found.get(key("steps"))
    return TurnFacts(
        run=facts.run,
        verdict=found.get(key("verdict")) or facts.verdict,
        outcome=found.get(key("outcome")) or facts.outcome,
        steps=[Step.model_validate(step) for step in kept.steps] if kept else facts.steps,
        past_steps=facts.past_steps,
    )


def _size(context: Context) -> int:
    return sum(len(entry.content) for entry in context.history.history) if context.history else 0


def _seconds(time: timedelta) -> int:
    """At least 1: 0 would mean for ever."""
    return max(1, min(_LONGEST_TTL_S, int(time.total_seconds())))
