"""State over Dapr's HTTP API, in the process and over a socket."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from everturn.dapr.wire import Request, Response, Transport
from everturn.runtime.resources.components import Component, Components
from tests.unit.runtime.conftest import OpenRig, Rig

STORE = "/v1.0/state/statestore"
FIRST_WRITE, LAST_WRITE = {"concurrency": "first-write"}, {"concurrency": "last-write"}


async def save(sidecar: Transport, *items: dict[str, Any]) -> Response:
    return await sidecar.send(Request("POST", STORE, {}, json.dumps(items).encode()))


async def get(sidecar: Transport, key: str) -> Response:
    return await sidecar.send(Request("GET", f"{STORE}/{key}"))


async def transact(sidecar: Transport, *operations: tuple[str, dict[str, Any]]) -> Response:
    body = {"operations": [{"operation": name, "request": request} for name, request in operations]}
    return await sidecar.send(Request("POST", f"{STORE}/transaction", {}, json.dumps(body).encode()))


def error_code(response: Response) -> str:
    return str(json.loads(response.body)["errorCode"])


async def test_a_saved_value_comes_back_with_an_etag_without_quotes(sidecar: Transport) -> None:
    saved = await save(sidecar, {"key": "k", "value": {"a": 1}})

    found = await get(sidecar, "k")

    assert (saved.status, saved.body) == (204, b"")
    assert (found.status, json.loads(found.body)) == (200, {"a": 1})
    assert found.headers["etag"]
    assert '"' not in found.headers["etag"]


async def test_a_missing_key_is_204_without_a_body(sidecar: Transport) -> None:
    response = await get(sidecar, "nothing")

    assert (response.status, response.body) == (204, b"")
    assert "etag" not in response.headers


async def test_a_value_comes_back_as_the_bytes_that_were_sent(sidecar: Transport) -> None:
    value = b'{"n": 1.10, "big":12345678901234567890123, "twice":1, "twice":2, "s":"\\u00e9\xc3\xa9"}'

    await sidecar.send(Request("POST", STORE, {}, b'[{"key":"k","value":' + value + b"}]"))

    assert (await get(sidecar, "k")).body == value


async def test_a_matching_etag_lets_a_save_through_and_changes(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})
    first = (await get(sidecar, "k")).headers["etag"]

    saved = await save(sidecar, {"key": "k", "value": 2, "etag": first, "options": FIRST_WRITE})

    found = await get(sidecar, "k")
    assert saved.status == 204
    assert found.body == b"2"
    assert found.headers["etag"] != first


async def test_a_stale_etag_is_refused(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})
    stale = (await get(sidecar, "k")).headers["etag"]
    await save(sidecar, {"key": "k", "value": 2})

    refused = await save(sidecar, {"key": "k", "value": 3, "etag": stale})

    assert (refused.status, error_code(refused)) == (409, "ERR_STATE_SAVE")
    assert (await get(sidecar, "k")).body == b"2"


async def test_the_etag_of_a_key_that_was_deleted_and_made_again_is_stale(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})
    old = (await get(sidecar, "k")).headers["etag"]
    await sidecar.send(Request("DELETE", f"{STORE}/k"))
    await save(sidecar, {"key": "k", "value": 1})

    refused = await save(sidecar, {"key": "k", "value": 3, "etag": old})

    assert refused.status == 409


@pytest.mark.parametrize(
    ("before", "guard", "status", "after"),
    [
        pytest.param(None, {"etag": "0"}, 409, b"", id="an etag needs a key"),
        pytest.param(None, {"options": FIRST_WRITE}, 204, b"2", id="a first write takes a new key"),
        pytest.param(1, {"options": FIRST_WRITE}, 409, b"1", id="a first write leaves a key that is there"),
        pytest.param(1, {"etag": "stale", "options": LAST_WRITE}, 204, b"2", id="a last write looks at no etag"),
    ],
)
async def test_a_save_is_made_if_its_guard_holds(
    sidecar: Transport, before: int | None, guard: dict[str, Any], status: int, after: bytes
) -> None:
    if before is not None:
        await save(sidecar, {"key": "k", "value": before})

    saved = await save(sidecar, {"key": "k", "value": 2, **guard})

    assert saved.status == status
    assert status == 204 or error_code(saved) == "ERR_STATE_SAVE"
    assert (await get(sidecar, "k")).body == after


async def test_of_several_saves_those_whose_guards_hold_are_made(sidecar: Transport) -> None:
    refused = await save(sidecar, {"key": "a", "value": 1}, {"key": "b", "value": 2, "etag": "stale"})

    assert refused.status == 409
    assert (await get(sidecar, "a")).body == b"1"
    assert (await get(sidecar, "b")).status == 204


async def test_a_deleted_key_is_gone(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})

    deleted = await sidecar.send(Request("DELETE", f"{STORE}/k"))

    assert deleted.status == 204
    assert (await get(sidecar, "k")).status == 204


async def test_a_delete_with_a_stale_etag_is_refused(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})

    refused = await sidecar.send(Request("DELETE", f"{STORE}/k", {"if-match": "stale"}))

    assert (refused.status, error_code(refused)) == (409, "ERR_STATE_DELETE")
    assert (await get(sidecar, "k")).status == 200


async def test_a_delete_with_the_etag_of_the_key_is_made(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": 1})
    etag = (await get(sidecar, "k")).headers["etag"]

    deleted = await sidecar.send(Request("DELETE", f"{STORE}/k", {"if-match": etag}))

    assert deleted.status == 204
    assert (await get(sidecar, "k")).status == 204


async def test_deleting_what_is_not_there_is_no_error(sidecar: Transport) -> None:
    response = await sidecar.send(Request("DELETE", f"{STORE}/nothing"))

    assert response.status == 204


async def test_a_transaction_makes_all_its_changes(sidecar: Transport) -> None:
    await save(sidecar, {"key": "old", "value": 0})

    response = await transact(sidecar, ("upsert", {"key": "new", "value": [1]}), ("delete", {"key": "old"}))

    assert response.status == 204
    assert (await get(sidecar, "new")).body == b"[1]"
    assert (await get(sidecar, "old")).status == 204


async def test_a_transaction_with_a_stale_etag_changes_nothing(sidecar: Transport) -> None:
    response = await transact(
        sidecar, ("upsert", {"key": "a", "value": 1}), ("upsert", {"key": "b", "value": 2, "etag": "stale"})
    )

    assert (response.status, error_code(response)) == (500, "ERR_STATE_TRANSACTION")
    assert (await get(sidecar, "a")).status == 204


async def test_a_transaction_with_an_unknown_operation_is_refused(sidecar: Transport) -> None:
    response = await transact(sidecar, ("increment", {"key": "a", "value": 1}))

    assert (response.status, error_code(response)) == (400, "ERR_NOT_SUPPORTED_STATE_OPERATION")


async def test_bulk_get_leaves_data_out_where_a_key_is_missing(sidecar: Transport) -> None:
    await save(sidecar, {"key": "k", "value": {"a": 1}})

    response = await sidecar.send(Request("POST", f"{STORE}/bulk", {}, b'{"keys":["k","nothing"]}'))

    there, missing = json.loads(response.body)
    assert there == {"key": "k", "data": {"a": 1}, "etag": (await get(sidecar, "k")).headers["etag"]}
    assert missing == {"key": "nothing"}


@pytest.mark.parametrize("key", ["a/b", "a b", "x%", "ü", "a?b", "session:1\n", "bulk"])
async def test_any_key_works_percent_encoded(sidecar: Transport, key: str) -> None:
    await save(sidecar, {"key": key, "value": 7})

    assert (await get(sidecar, quote(key, safe=""))).body == b"7"


async def test_a_key_with_two_bars_is_refused(sidecar: Transport) -> None:
    written, read = await save(sidecar, {"key": "a||b", "value": 1}), await get(sidecar, "a%7C%7Cb")

    assert (written.status, error_code(written)) == (400, "ERR_MALFORMED_REQUEST")
    assert read.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"value":1}]',
        b'[{"key":"","value":1}]',
        b'[{"key":"k","value":NaN}]',
        b'[{"key":"k","value":1}] x',
        b'[{"key":"k","value":',
        b'[{"key":7,"value":1}]',
        b'[{"key":"\\ud800","value":1}]',
        b"\xff",
        b'[{"key":"k","value":"\xff"}]',
        b'[{"key":"k","value":01}]',
        b'[{"key":"k","value":"\n"}]',
        b'[{"key":"k","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
    ],
)
async def test_a_body_that_is_no_list_of_saves_is_refused(sidecar: Transport, body: bytes) -> None:
    response = await sidecar.send(Request("POST", STORE, {}, body))

    assert (response.status, error_code(response)) == (400, "ERR_MALFORMED_REQUEST")
    assert (await get(sidecar, "k")).status == 204


async def test_a_time_to_live_that_is_no_number_is_not_saved(sidecar: Transport) -> None:
    body = b'[{"key":"k","value":1,"metadata":{"ttlInSeconds":"soon"}}]'

    response = await sidecar.send(Request("POST", STORE, {}, body))

    assert (response.status, error_code(response)) == (500, "ERR_STATE_SAVE")
    assert (await get(sidecar, "k")).status == 204


@pytest.mark.parametrize("ttl", [10**10 + 1, 10**12, 10**30, str(10**12)])
async def test_a_time_to_live_beyond_all_dates_is_refused_and_the_key_stays_readable(
    sidecar: Transport, ttl: int | str
) -> None:
    await save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": 10**10}})
    body = json.dumps([{"key": "k", "value": 2, "metadata": {"ttlInSeconds": ttl}}]).encode()

    response = await sidecar.send(Request("POST", STORE, {}, body))

    assert (response.status, error_code(response)) == (400, "ERR_STATE_SAVE")
    assert (await get(sidecar, "k")).body == b"1"


async def test_an_unknown_store_is_refused(sidecar: Transport) -> None:
    response = await sidecar.send(Request("GET", "/v1.0/state/other/k"))

    assert (response.status, error_code(response)) == (400, "ERR_STATE_STORE_NOT_FOUND")


async def test_a_key_is_gone_when_its_time_is_over(sidecar: Transport, rig: Rig) -> None:
    await save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": "10"}})
    before = await get(sidecar, "k")

    rig.clock.advance(10)

    assert before.status == 200
    assert (await get(sidecar, "k")).status == 204


async def test_the_ttl_of_the_query_counts_too(sidecar: Transport, rig: Rig) -> None:
    await sidecar.send(Request("POST", f"{STORE}?metadata.ttlInSeconds=10", {}, b'[{"key":"k","value":1}]'))

    rig.clock.advance(10)

    assert (await get(sidecar, "k")).status == 204


async def test_an_expired_key_can_be_claimed_by_first_write(sidecar: Transport, rig: Rig) -> None:
    await save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": 10}})
    rig.clock.advance(10)

    saved = await save(sidecar, {"key": "k", "value": 2, "options": FIRST_WRITE})

    assert saved.status == 204
    assert (await get(sidecar, "k")).body == b"2"


async def test_the_etag_of_an_expired_key_is_stale(sidecar: Transport, rig: Rig) -> None:
    await save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": 10}})
    etag = (await get(sidecar, "k")).headers["etag"]
    rig.clock.advance(10)

    refused = await save(sidecar, {"key": "k", "value": 2, "etag": etag})

    assert refused.status == 409


async def test_a_save_without_ttl_takes_the_old_one_away(sidecar: Transport, rig: Rig) -> None:
    await save(sidecar, {"key": "k", "value": 1, "metadata": {"ttlInSeconds": 10}})
    await save(sidecar, {"key": "k", "value": 2})

    rig.clock.advance(10)

    assert (await get(sidecar, "k")).body == b"2"


async def test_sweeping_deletes_expired_keys_and_no_others(rig: Rig) -> None:
    sidecar = rig.api()
    await sidecar.handle(Request("POST", f"{STORE}?metadata.ttlInSeconds=5", {}, b'[{"key":"gone","value":1}]'))
    await sidecar.handle(Request("POST", STORE, {}, b'[{"key":"stays","value":1}]'))
    rig.clock.advance(5)

    swept = await rig.blocks.sweep()

    assert swept == 1
    assert rig.database.read("SELECT key FROM state") == [("app-a||stays",)]


async def test_apps_do_not_see_each_others_keys(rig: Rig) -> None:
    await rig.api("app-a").handle(Request("POST", STORE, {}, b'[{"key":"k","value":1}]'))

    response = await rig.api("app-b").handle(Request("GET", f"{STORE}/k"))

    assert response.status == 204


async def test_a_store_with_the_key_prefix_none_is_shared(open_rig: OpenRig) -> None:
    shared = Component("statestore", "state.redis", metadata={"keyPrefix": "none"})
    rig = await open_rig(Components({"statestore": shared}))
    await rig.api("app-a").handle(Request("POST", STORE, {}, b'[{"key":"k","value":1}]'))

    response = await rig.api("app-b").handle(Request("GET", f"{STORE}/k"))

    assert response.body == b"1"


async def test_a_store_is_hidden_from_an_app_outside_its_scopes(open_rig: OpenRig) -> None:
    scoped = Component("statestore", "state.redis", scopes=frozenset({"app-b"}))
    rig = await open_rig(Components({"statestore": scoped}))

    response = await rig.api("app-a").handle(Request("GET", f"{STORE}/k"))

    assert error_code(response) == "ERR_STATE_STORE_NOT_FOUND"


async def test_an_acknowledged_save_is_there_after_a_crash(open_rig: OpenRig) -> None:
    before = await open_rig()
    await before.api().handle(Request("POST", STORE, {}, b'[{"key":"k","value":1}]'))

    after = await open_rig()

    assert (await after.api().handle(Request("GET", f"{STORE}/k"))).body == b"1"


async def test_a_store_that_cannot_be_read_is_an_error_and_not_an_empty_one(rig: Rig) -> None:
    await rig.database.close()

    response = await rig.api().handle(Request("GET", f"{STORE}/k"))

    assert (response.status, error_code(response)) == (500, "ERR_STATE_GET")
