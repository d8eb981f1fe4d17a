"""What is read of the state without the disk is what is on the disk."""

import asyncio

import pytest

from everturn.runtime.components import Component
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.state import StateStore, Write
from everturn.runtime.state_cache import Found, StateCache
from tests.unit.runtime_blocks.conftest import Rig


def store_of(rig: Rig, app_id: str = "app", **metadata: str) -> StateStore:
    return StateStore(rig.blocks.state, Component("statestore", "state.sqlite", metadata=metadata), app_id)


def value_of(store: StateStore, key: str) -> bytes | None:
    found = store.get(key)
    return None if found is None else found.value


async def test_a_value_that_was_just_written_is_read_without_the_disk(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    await rig.database.close()

    assert value_of(store, "k") == b"1"


async def test_a_write_whose_caller_went_away_is_read_once_it_is_on_disk(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])
    saving = asyncio.create_task(store.save([Write("k", b"2")]))
    await asyncio.sleep(0)

    saving.cancel()
    await rig.written()

    assert value_of(store, "k") == b"2"


async def test_a_write_under_way_is_not_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])
    saving = asyncio.create_task(store.save([Write("k", b"2")]))
    await asyncio.sleep(0)

    seen = value_of(store, "k")

    assert seen == b"1"
    await saving


async def test_a_transaction_that_fails_changes_nothing_that_is_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("a", b"1"), Write("b", b"1")])

    with pytest.raises(DaprError):
        await store.transact([Write("a", b"2"), Write("b", b"2", etag="another")])

    assert (value_of(store, "a"), value_of(store, "b")) == (b"1", b"1")


async def test_a_write_that_lost_leaves_the_winner_to_be_read(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    with pytest.raises(DaprError):
        await store.save([Write("k", b"2", first_write=True)])

    assert value_of(store, "k") == b"1"


async def test_a_deleted_key_is_gone(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1")])

    await store.delete("k", None)

    assert value_of(store, "k") is None


async def test_a_value_whose_time_is_over_is_gone(rig: Rig) -> None:
    store = store_of(rig)
    await store.save([Write("k", b"1", ttl_s=10)])

    rig.clock.advance(10)

    assert value_of(store, "k") is None


async def test_apps_that_share_keys_see_each_others_writes(rig: Rig) -> None:
    one, other = store_of(rig, "one", keyPrefix="none"), store_of(rig, "other", keyPrefix="none")
    await one.save([Write("k", b"1")])
    await other.save([Write("k", b"2")])

    seen = value_of(one, "k")

    assert seen == b"2"


def test_the_longest_unused_value_makes_room() -> None:
    cache = StateCache(max_bytes=2_000)
    for key in ("a", "b", "c"):
        cache.get(("s", "a"))
        cache.put(("s", key), Found(b"x" * 400, "e", None))

    kept = [key for key in ("a", "b", "c") if cache.get(("s", key)) is not None]

    assert kept == ["a", "c"]


def test_room_is_counted_once_for_a_value_that_changes() -> None:
    cache = StateCache(max_bytes=2_000)
    cache.put(("s", "a"), Found(b"x", "e", None))

    for number in range(100):
        cache.put(("s", "b"), Found(b"x", str(number), None))

    assert cache.get(("s", "a")) is not None


def test_a_very_large_value_is_left_on_the_disk() -> None:
    cache = StateCache()

    cache.put(("s", "k"), Found(b"x" * 1_000_000, "e", None))

    assert cache.get(("s", "k")) is None
