"""Places in a session, taken by several replicas over one store."""

from collections import Counter

import pytest

from everturn.chat.facts import Accepted, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.queue import SessionQueue
from everturn.chat.streamed_words import close_words
from everturn.dapr.client import DaprClient
from everturn.errors import TerminalError


class Started:
    """Whose workflow is started."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    async def start(self, run: TurnRun) -> None:
        self.runs[run.turn_id] += 1

    async def start_waiting(self, turn_id: str, number: int, session_id: str) -> None:  # noqa: ARG002
        self.runs[turn_id] += 1


class Replica:
    """The queue of one replica."""

    def __init__(self, dapr: DaprClient) -> None:
        self.started = Started()
        self.journal = Journal(dapr, 30, facts_of, close_words)
        self.queue = SessionQueue(dapr, self.journal, self.started)


def run(turn_id: str, overlap: str = "", number: int = 0) -> TurnRun:
    accepted = Accepted(user_id="ann", session_id="s", text="hi", at="2026-01-01T12:00:00.000Z", overlap=overlap)
    return TurnRun(turn_id, number, accepted)


async def test_a_message_that_does_not_wait_is_refused_by_the_place_that_came_first(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    late = run("late", "reject")
    await ours.journal.accept(late)
    seen = await ours.queue.read("s", "ann")
    await other.queue.enter(run("first"), is_new=True)

    with pytest.raises(TerminalError) as refused:
        await ours.queue.enter(late, seen, is_new=True)

    assert refused.value.kind == "busy"
    assert await other.journal.find("late") is None
    assert await ours.journal.find("late") is None


@pytest.mark.parametrize("others", [0, 30])
async def test_what_was_refused_nobody_enters_afterwards(dapr: DaprClient, others: int) -> None:
    """However many were refused since: a session keeps few of its refusals."""
    ours, other = Replica(dapr), Replica(dapr)
    first, late = run("first"), run("late", "reject")
    await other.queue.enter(first, is_new=True)
    for refusal in (late, *(run(f"t{number}", "reject") for number in range(others))):
        with pytest.raises(TerminalError):
            await ours.queue.enter(refusal, is_new=True)
    await other.queue.end(first)

    with pytest.raises(TerminalError) as refused:
        await other.queue.enter(late, is_new=False)

    assert refused.value.kind == "busy"
    assert (await ours.queue.read("s", "ann")).value.queue == []


async def test_of_two_requests_of_one_message_the_second_finds_the_place_of_the_first(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    once = run("once", "reject")
    seen = await other.queue.read("s", "ann")

    place = await ours.queue.enter(once, is_new=True)
    again = await other.queue.enter(once, seen, is_new=False)

    assert place == again
    assert place is not None


async def test_a_rerun_waits_whatever_its_message_said(dapr: DaprClient) -> None:
    ours = Replica(dapr)
    await ours.queue.enter(run("first"), is_new=True)

    place = await ours.queue.enter(run("again", "reject", number=1), is_new=False)

    assert place is not None
    assert place.sequence == 2


async def test_a_session_keeps_few_of_its_refusals(dapr: DaprClient) -> None:
    ours = Replica(dapr)
    await ours.queue.enter(run("first"), is_new=True)
    for number in range(50):
        with pytest.raises(TerminalError):
            await ours.queue.enter(run(f"t{number}", "reject"), is_new=True)

    session = (await ours.queue.read("s", "ann")).value

    assert session.refused[-1] == "t49"
    assert len(session.refused) == 20


async def test_a_late_attempt_takes_up_nothing_of_the_turn_that_runs_now(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    first, second = run("first"), run("second", "merge")
    await ours.queue.enter(first, is_new=True)
    await ours.queue.enter(second, is_new=True)
    await other.queue.end(first)

    assert await ours.queue.take_up(first, is_first=False) == []


async def test_of_a_take_and_a_cancellation_one_wins(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    first, second, third = run("first"), run("second", "merge"), run("third", "merge")
    for one in (first, second, third):
        await ours.queue.enter(one, is_new=True)

    await other.queue.keep_apart(third)
    places = await ours.queue.take_up(first, is_first=False)

    assert [place.turn_id for place in places] == ["second"]
    with pytest.raises(TerminalError) as refused:
        await other.queue.keep_apart(second)
    assert refused.value.kind == "merged"


async def test_what_another_replica_has_taken_up_ends_with_the_turn(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    first, second = run("first"), run("second", "merge")
    await ours.queue.enter(first, is_new=True)
    await other.queue.enter(second, is_new=True)
    await other.queue.take_up(first, is_first=False)

    assert [place.turn_id for place in await ours.queue.taken_by(first)] == ["second"]


async def test_what_a_reply_does_not_answer_runs_next(dapr: DaprClient) -> None:
    ours, other = Replica(dapr), Replica(dapr)
    first, second = run("first"), run("second", "merge")
    await ours.queue.enter(first, is_new=True)
    await ours.queue.enter(second, is_new=True)
    await ours.queue.take_up(first, is_first=False)

    await other.queue.end(first, completed=True)

    session = (await ours.queue.read("s", "ann")).value
    assert [(place.turn_id, place.into) for place in session.queue] == [("second", "")]
    assert other.started.runs == {"second": 1}
