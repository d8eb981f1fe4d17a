"""The state of an app: which store it is kept in, under which keys."""

import json
import logging

import pytest

from everturn.dapr.wire import Request
from everturn.errors import TransientError
from everturn.runtime.building_blocks import AppView
from everturn.runtime.errors import DaprError
from everturn.runtime.resources.components import Component, Components
from everturn.runtime.state.store import STATE_STORES, StateEntry, Write
from tests.unit.runtime.conftest import OpenRig, Rig
from tests.unit.runtime.state.stores import DictStateStore


def components(kind: str, **metadata: str) -> Components:
    return Components({"statestore": Component("statestore", kind, metadata=metadata)})


async def test_a_store_of_another_type_is_plugged_in(open_rig: OpenRig) -> None:
    rig = await open_rig(components("state.mine"), state_stores={"state.mine": DictStateStore})

    saved = await rig.api().handle(Request("POST", "/v1.0/state/statestore", {}, b'[{"key":"k","value":1}]'))

    assert saved.status == 204
    assert (await rig.api().handle(Request("GET", "/v1.0/state/statestore/k"))).body == b"1"
    assert rig.database.read("SELECT count(*) FROM state") == [(0,)]


async def test_a_type_without_a_store_is_kept_in_sqlite_and_the_log_says_so(
    open_rig: OpenRig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        rig = await open_rig(components("state.redis"))

    (record,) = [record for record in caplog.records if record.message == "state_kept_in_sqlite"]
    assert (record.__dict__["component"], record.__dict__["component_type"]) == ("statestore", "state.redis")
    await AppView("app", rig.blocks).state("statestore").save([Write("k", b"1")])
    assert rig.database.read("SELECT key FROM state") == [("app||k",)]


async def test_apps_that_share_keys_see_each_others_writes(open_rig: OpenRig) -> None:
    rig = await open_rig(components("state.sqlite", keyPrefix="none"))
    one, other = (AppView(name, rig.blocks).state("statestore") for name in ("one", "other"))
    await one.save([Write("k", b"1")])
    await other.save([Write("k", b"2")])

    assert (await one.get("k")) == (await other.get("k"))
    found = await one.get("k")
    assert found is not None
    assert found.value == b"2"


async def test_a_store_elsewhere_is_not_ahead_of_what_has_returned_here(open_rig: OpenRig) -> None:
    both = {kind: Component(kind, f"state.{kind}") for kind in ("sqlite", "mine")}
    rig = await open_rig(Components(both), state_stores={**STATE_STORES, "state.mine": DictStateStore})
    app = AppView("app", rig.blocks)
    await app.state("sqlite").save([Write("first", b"1", durable=False)])

    await app.state("mine").save([Write("second", b"1", durable=False)])

    assert rig.database.read("SELECT key FROM state") == [("app||first",)]


async def test_a_lost_guard_names_the_key_without_its_prefix(rig: Rig) -> None:
    state = AppView("app", rig.blocks).state("statestore")
    stale = Write("k", b"1", etag="stale")

    with pytest.raises(DaprError, match="the etag of k does not match") as saved:
        await state.save([stale])
    with pytest.raises(DaprError, match=r"possible etag mismatch for key k$") as transacted:
        await state.transact([stale])

    assert (saved.value.status, saved.value.code) == (409, "ERR_STATE_SAVE")
    assert (transacted.value.status, transacted.value.code) == (500, "ERR_STATE_TRANSACTION")


class AwayStore(DictStateStore):
    """Cannot be reached."""

    async def get(self, key: str) -> StateEntry | None:
        raise TransientError(f"cannot reach the store of {key}")

    async def make(self, write: Write) -> bool:
        raise TransientError(f"cannot reach the store of {write.key}")


async def test_a_store_that_cannot_be_reached_is_a_500_of_each_call(open_rig: OpenRig) -> None:
    rig = await open_rig(components("state.away"), state_stores={"state.away": AwayStore})
    path, body = "/v1.0/state/statestore", b'{"operations":[{"operation":"delete","request":{"key":"k"}}]}'

    answers = [
        await rig.api().handle(request)
        for request in (
            Request("GET", f"{path}/k"),
            Request("POST", f"{path}/bulk", {}, b'{"keys":["k"]}'),
            Request("POST", path, {}, b'[{"key":"k","value":1}]'),
            Request("DELETE", f"{path}/k"),
            Request("POST", f"{path}/transaction", {}, body),
        )
    ]

    assert {answer.status for answer in answers} == {500}
    assert [json.loads(answer.body)["errorCode"] for answer in answers] == [
        "ERR_STATE_GET",
        "ERR_STATE_GET",
        "ERR_STATE_SAVE",
        "ERR_STATE_DELETE",
        "ERR_STATE_TRANSACTION",
    ]
