"""Values that are no JSON, which can be saved over gRPC, as they are read over HTTP."""

import json

import pytest

from everturn.dapr.wire import Request, Transport
from everturn.runtime.building_blocks import AppView
from everturn.runtime.state.store import Write
from tests.unit.runtime.conftest import APP, Rig

STORE = "/v1.0/state/statestore"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"not json", b"", b"NaN", b"{} {}"])
async def test_a_bulk_read_names_what_is_no_json_and_gives_the_rest(sidecar: Transport, rig: Rig, raw: bytes) -> None:
    store = AppView(APP, rig.blocks).state("statestore")
    await store.save([Write("raw", raw), Write("json", b'{"a": 1}')])

    response = await sidecar.send(Request("POST", f"{STORE}/bulk", {}, b'{"keys":["raw","json"]}'))

    bad, good = json.loads(response.body)
    assert response.status == 200
    assert bad == {"key": "raw", "error": "the value is no JSON"}
    assert (good["key"], good["data"]) == ("json", {"a": 1})


async def test_one_alone_is_given_as_it_is(sidecar: Transport, rig: Rig) -> None:
    await AppView(APP, rig.blocks).state("statestore").save([Write("raw", b"\xff\xfe")])

    response = await sidecar.send(Request("GET", f"{STORE}/raw"))

    assert (response.status, response.body) == (200, b"\xff\xfe")
