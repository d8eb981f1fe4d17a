"""What every state store does, the one that ships and one of a third party: the contract of `StateStore`."""

import pytest

from everturn.runtime.resources.components import Component
from everturn.runtime.state.store import GuardError, StateStore, Write
from tests.unit.runtime.conftest import Rig
from tests.unit.runtime.state.stores import STORES


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, rig: Rig) -> StateStore:
    return STORES[request.param](Component("statestore", "state.any"), rig.database, rig.clock)


async def value_of(store: StateStore, key: str) -> bytes | None:
    entry = await store.get(key)
    return None if entry is None else entry.value


async def etag_of(store: StateStore, key: str) -> str:
    entry = await store.get(key)
    assert entry is not None
    return entry.etag


async def test_a_saved_value_is_read_to_the_byte(store: StateStore) -> None:
    lost = await store.save([Write("k", b'{"n": 1.10}')])

    assert lost == []
    assert await value_of(store, "k") == b'{"n": 1.10}'


async def test_a_key_that_is_not_there_is_none(store: StateStore) -> None:
    assert await store.get("nothing") is None


async def test_several_keys_are_read_in_their_order(store: StateStore) -> None:
    await store.save([Write("a", b"1"), Write("b", b"2")])

    found = await store.get_bulk(["b", "nothing", "a"])

    assert [entry and entry.value for entry in found] == [b"2", None, b"1"]
    assert found[2] == await store.get("a")


async def test_each_write_has_an_etag_of_its_own(store: StateStore) -> None:
    await store.save([Write("k", b"1")])
    first = await etag_of(store, "k")
    await store.save([Write("k", None)])
    await store.save([Write("k", b"1")])

    assert await etag_of(store, "k") != first


async def test_a_write_under_the_etag_is_made_once(store: StateStore) -> None:
    await store.save([Write("k", b"1")])
    etag = await etag_of(store, "k")
    won = await store.save([Write("k", b"2", etag=etag)])

    lost = await store.save([Write("k", b"3", etag=etag)])

    assert (won, [write.key for write in lost]) == ([], ["k"])
    assert await value_of(store, "k") == b"2"


async def test_a_write_under_an_etag_of_no_key_is_lost(store: StateStore) -> None:
    lost = await store.save([Write("k", b"1", etag="0")])

    assert len(lost) == 1
    assert await store.get("k") is None


async def test_a_first_write_takes_a_new_key_and_leaves_an_old_one(store: StateStore) -> None:
    won = await store.save([Write("k", b"1", first_write=True)])

    lost = await store.save([Write("k", b"2", first_write=True)])

    assert (won, [write.value for write in lost]) == ([], [b"2"])
    assert await value_of(store, "k") == b"1"


async def test_a_delete_is_a_write_without_a_value(store: StateStore) -> None:
    await store.save([Write("k", b"1")])

    lost = await store.save([Write("k", None, etag="stale"), Write("nothing", None)])
    still = await value_of(store, "k")
    await store.save([Write("k", None, etag=await etag_of(store, "k"))])

    assert ([write.key for write in lost], still) == (["k"], b"1")
    assert await store.get("k") is None


async def test_a_save_makes_those_whose_guard_holds(store: StateStore) -> None:
    lost = await store.save([Write("a", b"1", etag="stale"), Write("b", b"2")])

    assert [write.key for write in lost] == ["a"]
    assert await value_of(store, "b") == b"2"


async def test_a_transaction_makes_all_writes_in_order(store: StateStore) -> None:
    await store.save([Write("old", b"0")])

    await store.transact([Write("k", b"1"), Write("old", None), Write("k", b"2")])

    assert (await value_of(store, "k"), await value_of(store, "old")) == (b"2", None)


async def test_a_transaction_with_a_lost_guard_names_its_key_and_makes_nothing(store: StateStore) -> None:
    await store.save([Write("a", b"1")])

    with pytest.raises(GuardError) as raised:
        await store.transact([Write("a", b"2"), Write("b", b"2", etag="stale")])

    assert raised.value.key == "b"
    assert (await value_of(store, "a"), await value_of(store, "b")) == (b"1", None)


async def test_a_key_is_gone_when_its_time_is_over(store: StateStore, rig: Rig) -> None:
    await store.save([Write("k", b"1", ttl_s=10)])
    etag = await etag_of(store, "k")

    rig.clock.advance(10)

    assert await store.get("k") is None
    assert len(await store.save([Write("k", b"2", etag=etag)])) == 1
    assert await store.save([Write("k", b"3", first_write=True)]) == []


async def test_a_write_without_a_time_to_live_takes_the_old_one_away(store: StateStore, rig: Rig) -> None:
    await store.save([Write("k", b"1", ttl_s=10)])
    await store.save([Write("k", b"2")])

    rig.clock.advance(10)

    assert await value_of(store, "k") == b"2"


async def test_a_key_that_is_to_stay_stays(store: StateStore, rig: Rig) -> None:
    await store.save([Write("k", b"1", ttl_s=-1)])

    assert await value_of(store, "k") == b"1"


async def test_a_sweep_counts_the_keys_whose_time_is_over(store: StateStore, rig: Rig) -> None:
    await store.save([Write("gone", b"1", ttl_s=10), Write("kept", b"1")])
    rig.clock.advance(10)

    assert (await store.sweep(), await store.sweep()) == (1, 0)
    assert await value_of(store, "kept") == b"1"
