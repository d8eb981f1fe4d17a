import asyncio
import random

import pytest

from everturn.dapr.client import DaprClient
from everturn.errors import ConflictError, TransientError
from everturn.memory.domain import PAGE_CHARS, PAGE_TURNS, Arrival, StoredTurn
from everturn.memory.store import MAX_AHEAD, Conversations, Outcome, Stores
from tests.unit.memory.arrivals import name_of, placeless, turn
from tests.unit.memory.conftest import StateTransport


async def deliver(conversations: Conversations, arrival: Arrival) -> Outcome:
    """As the sidecar does: again and again until it is acknowledged."""
    for _ in range(50):
        try:
            return (await conversations.store(arrival)).outcome
        except (TransientError, ConflictError):
            continue
    raise AssertionError("never acknowledged")


async def history(stores: Stores, session_id: str = "s") -> list[StoredTurn]:
    conversation = await stores.conversations.find(session_id)
    return [] if conversation is None else await stores.conversations.history(session_id, conversation)


def names(turns: list[StoredTurn]) -> list[str | None]:
    return [stored.turn_id or stored.event_id for stored in turns]


async def test_a_turn_is_stored_whole(stores: Stores) -> None:
    await stores.conversations.store(turn(1))

    (stored,) = await history(stores)

    assert (stored.text, stored.reply) == ("message of t1", "reply of t1")
    assert (stored.accepted_at, stored.replied_at) == ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.000Z")


async def test_a_conversation_that_nobody_had_is_empty(stores: Stores) -> None:
    assert await stores.conversations.find("s") is None


@pytest.mark.parametrize("late", [1, PAGE_TURNS, PAGE_TURNS * 20])
async def test_a_turn_is_stored_once_also_long_after(stores: Stores, late: int) -> None:
    for sequence in range(1, late + 1):
        await stores.conversations.store(turn(sequence))

    again = await stores.conversations.store(turn(1))

    assert again.outcome is Outcome.DUPLICATE
    assert [stored.sequence for stored in await history(stores)] == list(range(1, late + 1))


@pytest.mark.parametrize("late", [0, PAGE_TURNS - 1, PAGE_TURNS * 2])
async def test_an_event_without_a_sequence_is_stored_once_by_its_id(stores: Stores, late: int) -> None:
    await stores.conversations.store(placeless("e"))
    for sequence in range(2, late + 2):
        await stores.conversations.store(turn(sequence))

    again = await stores.conversations.store(placeless("e"))

    assert again.outcome is Outcome.DUPLICATE
    assert len(await history(stores)) == late + 1


async def test_another_users_turn_is_dropped(stores: Stores) -> None:
    await stores.conversations.store(turn(1))

    other = await stores.conversations.store(turn(2, user_id="someone else"))

    assert other.outcome is Outcome.DROPPED
    assert names(await history(stores)) == ["t1"]


async def test_a_turn_far_ahead_of_its_session_is_dropped_wherever_the_session_stands(stores: Stores) -> None:
    outcomes = [
        (await stores.conversations.store(turn(sequence))).outcome
        for sequence in (MAX_AHEAD + 1, MAX_AHEAD, 2 * MAX_AHEAD + 1, 2 * MAX_AHEAD)
    ]

    assert outcomes == [Outcome.DROPPED, Outcome.STORED, Outcome.DROPPED, Outcome.STORED]


@pytest.mark.parametrize("seed", range(5))
async def test_any_order_of_arrival_with_duplicates_reads_the_same(stores: Stores, seed: int) -> None:
    dice = random.Random(seed)
    arrivals = [turn(sequence) for sequence in range(1, 60)]
    arrivals += dice.choices(arrivals, k=30)
    dice.shuffle(arrivals)

    outcomes = [(await stores.conversations.store(arrival)).outcome for arrival in arrivals]

    assert names(await history(stores)) == [f"t{sequence}" for sequence in range(1, 60)]
    assert outcomes.count(Outcome.STORED) == 59


async def test_replicas_that_write_at_once_store_each_turn_once(dapr: DaprClient, stores: Stores) -> None:
    replicas = [Conversations(dapr) for _ in range(3)]
    arrivals = [turn(sequence) for sequence in range(1, 20)] + [placeless(f"e{number}") for number in range(5)]

    await asyncio.gather(*(deliver(replica, arrival) for arrival in arrivals for replica in replicas))

    stored = names(await history(stores))
    assert sorted(map(str, stored)) == sorted([f"t{n}" for n in range(1, 20)] + [f"e{n}" for n in range(5)])


SESSION = [
    *(turn(sequence) for sequence in range(1, PAGE_TURNS)),
    placeless("old"),
    turn(PAGE_TURNS + 1, text="x" * PAGE_CHARS),
    placeless("older"),
    turn(PAGE_TURNS + 3),
]


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("cut_at", range(25))
async def test_a_crash_at_any_write_loses_and_doubles_nothing(
    transport: StateTransport, stores: Stores, cut_at: int, cut_after: bool
) -> None:
    transport.cut_at, transport.cut_after = cut_at, cut_after

    for arrival in SESSION:
        await deliver(stores.conversations, arrival)

    assert names(await history(stores)) == [name_of(arrival) for arrival in SESSION]


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("cut_at", [0, 1])
async def test_others_may_come_between_a_crash_and_the_next_delivery(
    transport: StateTransport, stores: Stores, cut_at: int, cut_after: bool
) -> None:
    transport.cut_at, transport.cut_after = cut_at, cut_after
    with pytest.raises(TransientError):
        await stores.conversations.store(placeless("e"))

    for sequence in range(2, PAGE_TURNS * 2):
        await stores.conversations.store(turn(sequence))
    await stores.conversations.store(placeless("e"))
    await stores.conversations.store(placeless("e"))

    assert names(await history(stores)).count("e") == 1


async def test_a_store_that_is_away_is_not_an_empty_one(transport: StateTransport, stores: Stores) -> None:
    await stores.conversations.store(turn(1))
    transport.is_away = True

    with pytest.raises(TransientError):
        await stores.conversations.find("s")
    with pytest.raises(TransientError):
        await stores.conversations.store(turn(2))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "a:page:0"), ("a", "a:0"), ("a|b", "a%7Cb"), ("a||b", "a"), ("%", "%25"), ("\u00e9", "e\u0301")],
)
async def test_sessions_with_similar_ids_do_not_mix(stores: Stores, one: str, other: str) -> None:
    for sequence in range(1, PAGE_TURNS + 2):
        await stores.conversations.store(turn(sequence, session_id=one))
        await stores.conversations.store(turn(sequence, session_id=other, turn_id=f"other{sequence}"))

    assert names(await history(stores, one)) == [f"t{sequence}" for sequence in range(1, PAGE_TURNS + 2)]
    assert names(await history(stores, other)) == [f"other{sequence}" for sequence in range(1, PAGE_TURNS + 2)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chars", [0, 100, 900, 10_000, 1_000_000])
async def test_a_window_is_the_end_of_the_history(stores: Stores, seed: int, chars: int) -> None:
    arrivals = [turn(sequence) for sequence in range(1, 300)]
    arrivals.append(turn(150, turn_id="late and taken"))
    random.Random(seed).shuffle(arrivals)
    for arrival in arrivals:
        await stores.conversations.store(arrival)
    conversation = await stores.conversations.find("s")
    assert conversation is not None

    window = await stores.conversations.window("s", conversation, chars)

    whole = await history(stores)
    assert window == whole[-len(window) :]
    assert sum(stored.chars for stored in window) <= chars or len(window) == 1
    assert len(window) == len(whole) or sum(stored.chars for stored in whole[-len(window) - 1 :]) > chars


async def test_a_window_reads_few_pages_of_a_long_conversation(transport: StateTransport, stores: Stores) -> None:
    for sequence in range(1, PAGE_TURNS * 40):
        await stores.conversations.store(turn(sequence))
    conversation = await stores.conversations.find("s")
    assert conversation is not None
    reads = transport.reads

    window = await stores.conversations.window("s", conversation, 1_000)

    assert len(window) > PAGE_TURNS
    assert transport.reads - reads <= 2


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (10, 30), (15, 17), (270, 299), (0, 1_000), (299, 300), (3, 3)])
async def test_turns_can_be_read_in_order_of_arrival(stores: Stores, start: int, stop: int) -> None:
    sequences = list(range(1, 300))
    random.Random(1).shuffle(sequences)
    for sequence in sequences:
        await stores.conversations.store(turn(sequence))
    conversation = await stores.conversations.find("s")
    assert conversation is not None

    turns = await stores.conversations.arrived("s", conversation, start, stop)

    assert [stored.sequence for stored in turns] == sequences[start:stop]


async def test_what_is_summarised_never_goes_back(stores: Stores) -> None:
    for sequence in range(1, 6):
        await stores.conversations.store(turn(sequence))

    await stores.conversations.acknowledge("s", 4)
    after = await stores.conversations.acknowledge("s", 2)

    assert after is not None
    assert after.summarised == 4
    assert not after.is_summarised
