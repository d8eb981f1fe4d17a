"""The index of a user's turns, over a real store: what it costs, and what crashes and races leave."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from everturn.chat.facts import Accepted, Outcome, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.queue import SessionQueue
from everturn.chat.streamed_words import close_words
from everturn.chat.user_index import PAGE, UserIndexes, index_key, page_key
from everturn.contracts.chat import TurnStatus
from everturn.contracts.events import CHAT_APP_ID
from everturn.contracts.fields import to_wire, utc_now
from everturn.dapr.client import Save, SidecarClient, Versioned
from everturn.dapr.wire import AsgiTransport
from everturn.errors import ConflictError, TransientError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from tests.unit.chat.test_queue import Started


class Counted:
    """A client that counts its requests and their bytes; `before` is called before each write, `after` behind it."""

    def __init__(self, inner: SidecarClient) -> None:
        self._inner = inner
        self.requests: list[str] = []
        self.bytes = 0
        self.before: Callable[[Save], None] = lambda _: None
        self.after: Callable[[Save], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get_state(self, key: str) -> Versioned[Any] | None:
        self.requests.append(f"get {key}")
        return await self._inner.get_state(key)

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        self.requests.append(f"get {len(keys)}")
        return await self._inner.get_states(keys)

    async def save_state(self, *saves: Save) -> None:
        for save in saves:
            self.before(save)
            self.requests.append(f"save {save.key}")
            self.bytes += len(str(save.value))
        await self._inner.save_state(*saves)
        for save in saves:
            self.after(save)


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[EmbeddedRuntime]:
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions())
    yield runtime
    await runtime.stop(1)


@pytest.fixture
def client(runtime: EmbeddedRuntime) -> Counted:
    return Counted(runtime.add_app(CHAT_APP_ID, AsgiTransport()).client)


def journal_of(client: Counted) -> Journal:
    return Journal(client, 30, facts_of, close_words)


class Rig:
    """A process: its journal and its indexes."""

    def __init__(self, client: Counted, most_open: int = 1_000) -> None:
        self.journal = journal_of(client)
        self.indexes = UserIndexes(client, self.journal, most_open)

    async def accept(self, number: int, user: str = "ann", session: str = "s") -> TurnRun:
        run = run_of(number, user, session)
        await self.indexes.add(run, is_new=True)
        return run

    async def end(self, run: TurnRun) -> None:
        await self.journal.write(run.key("outcome"), Outcome(status=TurnStatus.COMPLETED, at="x", sequence=1))

    async def listed(self, user: str = "ann", before: int | None = None) -> list[str]:
        return [entry.turn_id async for _, entry in self.indexes.newest(user, before)]


def run_of(number: int, user: str = "ann", session: str = "s") -> TurnRun:
    """A run that has just been accepted, and is about to get its place."""
    accepted = Accepted(user_id=user, session_id=session, text="Hi", at=to_wire(utc_now()))
    return TurnRun(f"{user}-{number}", 0, accepted)


@pytest.fixture
def rig(client: Counted) -> Rig:
    return Rig(client)


def names(numbers: range) -> list[str]:
    return [f"ann-{number}" for number in numbers]


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 6 * PAGE, 6 * PAGE + 3])
async def test_turns_are_listed_newest_first_over_pages(rig: Rig, count: int) -> None:
    for number in range(count):
        await rig.end(await rig.accept(number))
        await rig.accept(number, "bob")

    assert await rig.listed() == names(range(count - 1, -1, -1))
    for before in (1, PAGE, PAGE + 1, count):
        assert await rig.listed(before=before) == names(range(min(before, count) - 1, -1, -1))


async def test_a_turn_costs_the_same_for_a_user_with_many_turns(rig: Rig, client: Counted) -> None:
    costs = []
    for number in range(12 * PAGE):
        client.requests.clear()
        client.bytes = 0
        await rig.end(await rig.accept(number))
        costs.append((len(client.requests), client.bytes))

    first, last = costs[PAGE : 2 * PAGE], costs[-PAGE:]
    assert [requests for requests, _ in first] == [requests for requests, _ in last]
    assert sum(size for _, size in last) < 1.05 * sum(size for _, size in first)


async def test_of_a_turn_one_read_and_one_write_are_of_the_index(rig: Rig, client: Counted) -> None:
    await rig.end(await rig.accept(0))
    client.requests.clear()

    await rig.accept(1)

    assert sorted(client.requests) == [
        f"get {index_key('ann')}",
        "save turn:ann-1:accepted",
        f"save {index_key('ann')}",
    ]


async def test_a_turn_is_entered_once_however_often_it_is_tried(rig: Rig) -> None:
    for number in (0, 1, 0):
        await rig.indexes.add(run_of(number), is_new=number == 1)

    assert await rig.listed() == names(range(1, -1, -1))


async def test_turns_of_two_processes_at_once_are_all_there(client: Counted) -> None:
    rigs = [Rig(client), Rig(client)]

    await asyncio.gather(*(rigs[number % 2].accept(number) for number in range(3 * PAGE)))

    assert sorted(await rigs[0].listed(), key=lambda name: int(name[4:])) == names(range(3 * PAGE))


async def test_a_crash_between_page_and_index_loses_and_doubles_nothing(rig: Rig, client: Counted) -> None:
    for number in range(PAGE):
        await rig.accept(number)

    def crash(save: Save) -> None:
        if save.key == index_key("ann"):
            raise TransientError("the process ends here")

    client.before = crash
    with pytest.raises(TransientError):
        await rig.accept(PAGE)
    client.before = lambda _: None
    assert await client.get_state(page_key("ann", 0)) is not None

    restarted = Rig(client)
    await restarted.accept(PAGE + 1)

    assert await restarted.listed() == [f"ann-{PAGE + 1}", *names(range(PAGE - 1, -1, -1))]


async def test_a_store_that_says_no_to_what_it_has_written_doubles_nothing(rig: Rig, client: Counted) -> None:
    """On Redis a refused write and one whose answer is lost look alike."""
    lost: list[int] = []

    def lie(save: Save) -> None:
        if save.key == index_key("ann") and not lost:
            lost.append(1)
            raise ConflictError("perhaps lost")

    client.after = lie
    await rig.accept(0)

    assert (lost, await rig.listed()) == ([1], ["ann-0"])


async def test_one_turn_more_than_may_be_open_is_refused_and_leaves_nothing(client: Counted) -> None:
    rig = Rig(client, most_open=3)
    runs = [await rig.accept(number) for number in range(3)]
    await rig.accept(0, "bob")

    for _ in range(2):
        with pytest.raises(TransientError, match="have not ended") as refused:
            await rig.accept(3)
    with pytest.raises(TransientError):
        await rig.indexes.read_with_room("ann")

    assert (refused.value.kind, await rig.journal.find("ann-3")) == ("too_many_open", None)
    await rig.end(runs[1])
    await rig.accept(3)
    assert await rig.listed() == ["ann-3", "ann-2", "ann-1", "ann-0"]


async def test_a_further_run_counts_once_and_until_it_ends(client: Counted) -> None:
    here, elsewhere = Rig(client, most_open=2), Rig(client, most_open=2)
    first = await here.accept(0)
    await here.end(first)
    again = TurnRun(first.turn_id, 1, first.accepted)
    for rig in (here, elsewhere, here):
        await rig.indexes.open_again(again)
    await here.journal.ask(again)
    await here.accept(1)

    with pytest.raises(TransientError):
        await here.accept(2)
    await elsewhere.end(again)

    await here.accept(3)


async def test_a_further_run_that_was_never_asked_for_is_not_open(client: Counted) -> None:
    rig = Rig(client, most_open=1)
    first = await rig.accept(0)
    await rig.end(first)

    await rig.indexes.open_again(TurnRun(first.turn_id, 1, first.accepted))  # and then a crash

    await rig.accept(1)


async def test_of_many_at_once_no_more_are_taken_than_may_be_open(client: Counted) -> None:
    rig = Rig(client, most_open=5)
    seen = await rig.indexes.read_with_room("ann")

    async def accept(number: int) -> bool:
        try:
            await rig.indexes.add(run_of(number), seen, is_new=True)
        except TransientError:
            return False
        return True

    taken = await asyncio.gather(*(accept(number) for number in range(40)))

    assert sum(taken) == 5
    assert len(await rig.listed()) == 5


async def test_what_ended_in_another_process_or_was_never_accepted_is_not_open(client: Counted) -> None:
    here, elsewhere = Rig(client, most_open=2), Rig(client, most_open=2)
    run = await here.accept(0)
    await here.indexes.add(run_of(1), is_new=False)  # a crash came before it was accepted
    await elsewhere.end(run)

    await here.accept(2)
    await here.accept(3)

    with pytest.raises(TransientError):
        await here.accept(4)


async def test_what_has_long_had_no_place_is_not_open(client: Counted) -> None:
    """Its client heard 503 and never came back."""
    rig, queue = Rig(client, most_open=2), SessionQueue(client, journal_of(client), Started())
    long_ago = to_wire(utc_now() - timedelta(hours=1))
    runs = [
        TurnRun(f"ann-{number}", 0, Accepted(user_id="ann", session_id=f"s{number}", text="Hi", at=long_ago))
        for number in range(4)
    ]
    for run in runs[:2]:
        await rig.indexes.add(run, is_new=True)

    for run in runs[2:]:
        await rig.indexes.add(run, is_new=True)
        await queue.enter(run, is_new=True)

    with pytest.raises(TransientError):
        await rig.accept(4)


async def test_open_turns_that_have_ended_elsewhere_do_not_pile_up(client: Counted) -> None:
    here, elsewhere = Rig(client), Rig(client)
    for number in range(4 * PAGE):
        await elsewhere.end(await here.accept(number))

    stored = await client.get_state(index_key("ann"))
    assert stored is not None
    assert len(stored.value["open"]) <= PAGE


async def test_what_a_newer_release_wrote_is_kept(rig: Rig, client: Counted) -> None:
    await client.save_state(Save(index_key("ann"), {"version": 2, "colour": "blue"}))
    await rig.accept(0)

    item = await client.get_state(index_key("ann"))
    assert item is not None
    assert item.value["colour"] == "blue"
    assert [turn["turn_id"] for turn in item.value["turns"]] == ["ann-0"]


async def test_keys_of_users_with_strange_names_do_not_meet(rig: Rig) -> None:
    users = ["a", "a:turns:0", "a:index", "a||b", "a|b", "%7C"]
    for user in users:
        for number in range(PAGE + 1):
            await rig.accept(number, user)

    for user in users:
        assert await rig.listed(user) == [f"{user}-{number}" for number in range(PAGE, -1, -1)]
