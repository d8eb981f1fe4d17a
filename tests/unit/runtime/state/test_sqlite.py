"""What is read of the state without the disk is what is on the disk."""

import asyncio

import pytest

from everturn.runtime.resources.components import Component
from everturn.runtime.state.store import GuardError, RecentValues, SqliteStateStore, StateEntry, Write
from tests.unit.runtime.conftest import Rig


def store_of(rig: Rig) -> SqliteStateStore:
    return SqliteStateStore(Component("statestore", "state.sqlite"), rig.database, rig.clock)


async def value_of(store: SqliteStateStore, key: str) -> bytes | None:
    entry = await store.get(key)
    return None if entry is None else entry.value


async def test_a_value_that_was_just_written_is_read_without_the_disk(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    await rig.database.close()

    assert await value_of(store, "k") == b"1"


async def test_a_write_whose_caller_went_away_is_read_once_it_is_on_disk(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])
    saving = asyncio.create_task(store.save([Write("k", b"2")]))
    await asyncio.sleep(0)

    saving.cancel()
    await rig.written()

    assert await value_of(store, "k") == b"2"


async def test_a_write_under_way_is_not_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])
    saving = asyncio.create_task(store.save([Write("k", b"2")]))
    await asyncio.sleep(0)

    seen = await value_of(store, "k")

    assert seen == b"1"
    await saving


async def test_a_transaction_that_fails_changes_nothing_that_is_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("a", b"1"), Write("b", b"1")])

    with pytest.raises(GuardError):
        await store.transact([Write("a", b"2"), Write("b", b"2", etag="another")])

    assert (await value_of(store, "a"), await value_of(store, "b")) == (b"1", b"1")


async def test_a_write_that_lost_leaves_the_winner_to_be_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    lost = await store.save([Write("k", b"2", first_write=True)])

    assert [write.key for write in lost] == ["k"]
    assert await value_of(store, "k") == b"1"


async def test_a_deleted_key_is_gone(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    await store.save([Write("k", None)])

    assert await value_of(store, "k") is None


async def test_a_value_whose_time_is_over_is_gone(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1", ttl_s=10)])

    rig.clock.advance(10)

    assert await value_of(store, "k") is None


def test_the_longest_unused_value_makes_room() -> None:
    cache = RecentValues(max_bytes=2_000)
    for key in ("a", "b", "c"):
        cache.get("a")
        cache.put(key, StateEntry(b"x" * 400, "e"))

    kept = [key for key in ("a", "b", "c") if cache.get(key) is not None]

    assert kept == ["a", "c"]


def test_room_is_counted_once_for_a_value_that_changes() -> None:
    cache = RecentValues(max_bytes=2_000)
    cache.put("a", StateEntry(b"x", "e"))

    for number in range(100):
        cache.put("b", StateEntry(b"x", str(number)))

    assert cache.get("a") is not None


def test_a_very_large_value_is_left_on_the_disk() -> None:
    cache = RecentValues()

    cache.put("k", StateEntry(b"x" * 1_000_000, "e"))

    assert cache.get("k") is None


async def test_what_has_returned_is_read_once_it_is_on_disk(rig: Rig) -> None:
    store, before = store_of(rig), rig.database.commits
    await store.save([Write("k", b"1", durable=False)])
    returned_at = rig.database.commits

    seen = await value_of(store, "k")

    assert (returned_at, rig.database.commits) == (before, before + 1)
    assert seen == b"1"


async def test_several_are_read_when_all_of_them_are_on_disk(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("a", b"1", durable=False)])
    await store.transact([Write("b", b"2", durable=False), Write("c", b"3", durable=False)])

    found = await store.get_bulk(["a", "b", "c"])

    assert [entry and entry.value for entry in found] == [b"1", b"2", b"3"]


async def test_a_call_with_one_durable_write_is_durable(rig: Rig) -> None:
    store, before = store_of(rig), rig.database.commits

    await store.save([Write("a", b"1", durable=False), Write("b", b"1")])

    assert rig.database.commits == before + 1
