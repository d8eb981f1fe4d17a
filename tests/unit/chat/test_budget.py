"""What counts as used today, over a real store."""

from datetime import timedelta

import pytest

from everturn.chat.budget import TokenBudget
from everturn.chat.facts import Accepted, Reply, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.streamed_words import close_words
from everturn.chat.user_index import UserIndexes
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.client import DaprClient
from everturn.errors import TransientError


async def test_what_was_used_today_counts_behind_messages_of_yesterday_that_were_finished_today(
    dapr: DaprClient,
) -> None:
    """A repeated request finishes its message under the time at which it was accepted first."""
    journal = Journal(dapr, 30, facts_of, close_words)
    indexes = UserIndexes(dapr, journal, 50)

    async def add(turn_id: str, days: int) -> TurnRun:
        at = to_wire(utc_now() + timedelta(days=days))
        run = TurnRun(turn_id, 0, Accepted(user_id="ann", session_id="s", text="hi", at=at))
        await indexes.add(run, is_new=True)
        return run

    # Tomorrow is today if midnight comes in between.
    today = await add("today", 1)
    used = Reply(text="hello", model="m", at=today.accepted.at, usage={"input_tokens": 3, "output_tokens": 2})
    await journal.write_verdict(today, used)
    for number in range(5):
        await add(f"late-{number}", -2)

    with pytest.raises(TransientError) as refused:
        await TokenBudget(journal, indexes, 5).check("ann")

    assert refused.value.kind == "tokens_used_up"
    await TokenBudget(journal, indexes, 6).check("ann")
