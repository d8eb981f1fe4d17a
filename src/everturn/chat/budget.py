"""How many tokens a user may use a day (UTC). They are counted from the journal: each call once, whatever crashed.

A turn counts for the day on which it was accepted, from its calls while it runs.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from everturn.chat.calls import calls_of
from everturn.chat.facts import Reply, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.user_index import UserIndexes
from everturn.contracts.chat import TurnStatus
from everturn.contracts.fields import to_wire, utc_now
from everturn.errors import TransientError

_CACHED_TURNS = 20_000
# Older turns in a row that are passed over: one that a repeated request finished today comes after those of today.
_MOST_LATE = 25


@dataclass(eq=False, slots=True)
class TokenBudget:
    """A user may use `daily_tokens`, input and output together; a message beyond it is refused."""

    _journal: Journal
    _indexes: UserIndexes
    daily_tokens: int
    # Of turns that use no more: what they used.
    _used: dict[str, int] = field(default_factory=dict, init=False)

    async def check(self, user_id: str) -> None:
        """Raises TransientError (kind `tokens_used_up`) until the day is over, if all of its tokens are used."""
        now = utc_now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
        today: list[str] = []
        older = 0
        async for _, turn in self._indexes.newest(user_id):
            if turn.at >= to_wire(midnight):
                today.append(turn.turn_id)
                older = 0
            elif (older := older + 1) > _MOST_LATE:
                break
        used = sum(await asyncio.gather(*(self._tokens(turn_id) for turn_id in today)))
        if used < self.daily_tokens:
            return
        renewal = midnight + timedelta(days=1)
        raise TransientError(
            f"this user has used {used} of {self.daily_tokens} tokens today; there are new ones at {to_wire(renewal)}",
            kind="tokens_used_up",
            retry_after_s=(renewal - now).total_seconds(),
        )

    async def _tokens(self, turn_id: str) -> int:
        if (known := self._used.get(turn_id)) is not None:
            return known
        facts = await self._journal.find(turn_id)
        if facts is None:
            return 0
        runs = [TurnRun(turn_id, number, facts.run.accepted) for number in range(facts.run.number)]
        tokens = sum(await asyncio.gather(*(self._tokens_of_calls(run) for run in runs)))
        if isinstance(facts.verdict, Reply):
            tokens += facts.verdict.usage.get("input_tokens", 0) + facts.verdict.usage.get("output_tokens", 0)
        else:
            tokens += await self._tokens_of_calls(facts.run)
        if facts.outcome is not None and facts.outcome.status is TurnStatus.COMPLETED:
            if len(self._used) >= _CACHED_TURNS:
                self._used.clear()
            self._used[turn_id] = tokens
        return tokens

    async def _tokens_of_calls(self, run: TurnRun) -> int:
        return sum(sum(call.tokens) for call in await calls_of(self._journal, run))
