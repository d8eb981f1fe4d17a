"""What is stored: what another release wrote is read, and nothing of it is lost when it is written again."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from everturn.contracts.memory import UserMemory
from everturn.dapr.client import DaprClient, Save
from everturn.errors import TransientError
from everturn.memory.domain import (
    FANOUT,
    PAGE_TURNS,
    Conversation,
    MergedMessage,
    Node,
    NodeRef,
    UserRecord,
    with_room,
    with_turn,
)
from everturn.memory.store import Stores, conversation_from_json, node_from_json, to_json, user_from_json
from tests.unit.memory.arrivals import placeless, turn

TURN_1 = [0, "t1", None, 1, "message of t1", "reply of t1", "2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.000Z"]
EVENT_1 = [1, None, "e", 2, "message of e", "reply of e", "2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.000Z"]


def conversation() -> Conversation:
    return with_turn(with_turn(Conversation(owner="u"), turn(1)), placeless("e"))


def test_an_index_of_version_1_is_read() -> None:
    index = {"owner": "u", "last_sequence": 2, "count": 2, "summarised": 0, "nodes": 0, "tail": [TURN_1, EVENT_1]}

    assert conversation_from_json({**index, "levels": []}) == conversation()
    (ref,) = conversation_from_json({**index, "levels": [[[0, 1, 16, 16]]]}).roots
    assert ref == NodeRef(number=0, low=1, high=16, count=16)


def test_a_node_of_version_1_is_read() -> None:
    page = node_from_json({"number": 3, "turns": [TURN_1, EVENT_1], "refs": []})
    above = node_from_json({"number": 4, "turns": [], "refs": [[3, 1, 2, 2]]})

    assert page == Node(number=3, turns=conversation().tail)
    assert above == Node(number=4, refs=(page.ref,))


def test_a_user_of_version_1_is_read() -> None:
    memory = {"name": "Ann", "preferred_style": "formal", "user_summary": "Known."}

    user = user_from_json({"memory": memory, "applied": {"s": 3}})

    assert user.memory is not None
    assert (user.memory.user_summary, user.applied) == ("Known.", {"s": 3})
    assert user_from_json({"memory": None, "applied": {}}) == UserRecord()


async def test_fields_that_a_newer_release_wrote_stay_when_a_turn_is_added(stores: Stores, dapr: DaprClient) -> None:
    await stores.conversations.store(turn(1))
    index = await value_of(dapr, "session:s")
    index["title"], index["turns"][0]["mood"] = "Hello", "fine"
    await dapr.save_state(Save("session:s", index))

    await stores.conversations.store(turn(2))
    await stores.conversations.acknowledge("s", 1)

    after = await value_of(dapr, "session:s")
    assert (after["title"], after["turns"][0]["mood"], len(after["turns"])) == ("Hello", "fine", 2)


async def test_fields_that_a_newer_release_wrote_stay_when_a_page_is_sealed(stores: Stores, dapr: DaprClient) -> None:
    await stores.conversations.store(turn(1))
    index = await value_of(dapr, "session:s")
    index["turns"][0]["mood"] = "fine"
    await dapr.save_state(Save("session:s", index))

    for sequence in range(2, PAGE_TURNS + 2):
        await stores.conversations.store(turn(sequence))

    assert (await value_of(dapr, "page:s:0"))["turns"][0]["mood"] == "fine"


async def test_fields_that_a_newer_release_wrote_stay_in_merged_messages(stores: Stores, dapr: DaprClient) -> None:
    merged = MergedMessage(turn_id="t2", sequence=2, text="and?", accepted_at="2026-01-31T12:00:00.000Z")
    first = turn(1)
    await stores.conversations.store(replace(first, turn=structs.replace(first.turn, merged=(merged,))))
    index = await value_of(dapr, "session:s")
    index["turns"][0]["merged"][0]["mood"] = "fine"
    await dapr.save_state(Save("session:s", index))

    await stores.conversations.store(turn(3))

    after = await value_of(dapr, "session:s")
    assert after["turns"][0] == index["turns"][0]


async def test_fields_that_a_newer_release_wrote_stay_in_references(stores: Stores, dapr: DaprClient) -> None:
    for sequence in range(1, PAGE_TURNS + 2):
        await stores.conversations.store(turn(sequence))
    index = await value_of(dapr, "session:s")
    index["levels"][0][0]["language"] = "en"
    await dapr.save_state(Save("session:s", index))

    await stores.conversations.store(turn(PAGE_TURNS + 2))

    assert (await value_of(dapr, "session:s"))["levels"] == index["levels"]


async def test_fields_that_a_newer_release_wrote_stay_in_references_that_are_sealed(
    stores: Stores, dapr: DaprClient
) -> None:
    for sequence in range(1, PAGE_TURNS * FANOUT + 2):
        await stores.conversations.store(turn(sequence))
    index = await value_of(dapr, "session:s")
    index["levels"][0][0]["language"] = "en"
    await dapr.save_state(Save("session:s", index))

    for sequence in range(PAGE_TURNS * FANOUT + 2, PAGE_TURNS * (FANOUT + 1) + 2):
        await stores.conversations.store(turn(sequence))

    assert (await value_of(dapr, f"page:s:{FANOUT + 1}"))["nodes"] == index["levels"][0]


async def test_fields_that_a_newer_release_wrote_stay_when_a_summary_is_written(
    stores: Stores, dapr: DaprClient
) -> None:
    await stores.users.initialize("u", UserMemory(name="Ann", preferred_style="formal", user_summary="Known."))
    user = await value_of(dapr, "user:u")
    user["plan"], user["memory"]["pronouns"] = "free", "she"
    await dapr.save_state(Save("user:u", user))

    await stores.users.apply_summary("u", await stores.users.read("u"), "unknown", "New.", 1)
    await stores.users.forget_applied("u", "unknown", 1)

    after = await value_of(dapr, "user:u")
    assert (after["plan"], after["memory"]["pronouns"], after["memory"]["user_summary"]) == ("free", "she", "New.")
    assert after["applied"] == {}


def test_what_a_newer_release_wrote_in_another_way_is_not_misread() -> None:
    (page,) = with_room(full())[1]

    for read, value in ((conversation_from_json, to_json(conversation())), (node_from_json, to_json(page))):
        with pytest.raises(TransientError):
            read({**value, "version": 3})
    with pytest.raises(TransientError):
        user_from_json({"version": 3})


def full() -> Conversation:
    grown = Conversation(owner="u")
    for sequence in range(1, PAGE_TURNS + 1):
        grown = with_turn(grown, turn(sequence))
    return grown


async def value_of(dapr: DaprClient, key: str) -> Any:
    found = await dapr.get_state(key)
    assert found is not None
    return found.value
