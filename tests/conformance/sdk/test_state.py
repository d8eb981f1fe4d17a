"""State: over the SDK's client, and over HTTP if the SDK hides something."""

import json
from typing import Any

import pytest
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, StateItem, StateOptions

from tests.conformance.sdk.program import Program, code_of, until

STORE = "statestore"
FIRST_WRITE = StateOptions(concurrency=Concurrency.first_write)
LAST_WRITE = StateOptions(concurrency=Concurrency.last_write)
UPSERT, DELETE = TransactionOperationType.upsert, TransactionOperationType.delete


def read(program: Program, key: str) -> bytes:
    return bytes(program.dapr.get_state(STORE, program.named(key)).data)


def post(program: Program, path: str, body: Any) -> tuple[int, str]:
    response = program.http.post(path, json=body)
    return response.status_code, response.json()["errorCode"] if response.content else ""


@pytest.mark.parametrize("value", [b"text", b"\x00raw\xff", b'{"a": [1, 2]}', b"1", b'"quoted"', b"null"])
def test_what_is_saved_is_read(program: Program, value: bytes) -> None:
    program.dapr.save_state(STORE, program.named("k"), value)

    assert read(program, "k") == value


def test_an_empty_value_is_kept_or_refused(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")

    answer = code_of(lambda: program.dapr.save_state(STORE, key, ""))

    # PostgreSQL's column takes no null, which Dapr makes of it.
    assert (answer, read(program, "k")) in (("OK", b""), ("INTERNAL", b"1"))


def test_a_missing_key_has_no_data_and_no_etag(program: Program) -> None:
    found = program.dapr.get_state(STORE, program.named("nothing"))

    assert (found.data, found.etag) == (b"", "")


def test_each_write_has_another_etag(program: Program) -> None:
    etags = []
    for value in ("1", "2"):
        program.dapr.save_state(STORE, program.named("k"), value)
        etags.append(program.dapr.get_state(STORE, program.named("k")).etag)

    assert all(etags)
    assert etags[0] != etags[1]


def test_the_right_etag_writes_and_a_stale_one_does_not(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")
    etag = program.dapr.get_state(STORE, key).etag

    first = code_of(lambda: program.dapr.save_state(STORE, key, "2", etag=etag, options=FIRST_WRITE))
    second = code_of(lambda: program.dapr.save_state(STORE, key, "3", etag=etag, options=FIRST_WRITE))

    assert (first, second) == ("OK", "ABORTED")
    assert read(program, "k") == b"2"


def test_a_stale_etag_does_not_delete(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")
    stale = program.dapr.get_state(STORE, key).etag
    program.dapr.save_state(STORE, key, "2")

    refused = code_of(lambda: program.dapr.delete_state(STORE, key, etag=stale, options=FIRST_WRITE))
    current = program.dapr.get_state(STORE, key).etag
    allowed = code_of(lambda: program.dapr.delete_state(STORE, key, etag=current, options=FIRST_WRITE))

    assert (refused, allowed, read(program, "k")) == ("ABORTED", "OK", b"")


def test_the_last_write_wins_where_no_etag_is_sent(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")

    program.dapr.save_state(STORE, key, "2", options=LAST_WRITE)

    assert read(program, "k") == b"2"


def test_a_last_write_with_a_stale_etag_wins_or_is_refused(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")
    stale = program.dapr.get_state(STORE, key).etag
    program.dapr.save_state(STORE, key, "2")

    answer = code_of(lambda: program.dapr.save_state(STORE, key, "3", etag=stale, options=LAST_WRITE))

    # Redis looks at the ETag of a first write only, PostgreSQL at every one.
    assert (answer, read(program, "k")) in (("OK", b"3"), ("ABORTED", b"2"))


def test_of_two_first_writes_one_is_kept(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1", options=FIRST_WRITE)

    refused = code_of(lambda: program.dapr.save_state(STORE, key, "2", options=FIRST_WRITE))

    assert refused != "OK"
    assert read(program, "k") == b"1"


def test_a_deleted_key_is_gone_and_deleting_it_again_does_no_harm(program: Program) -> None:
    program.dapr.save_state(STORE, program.named("k"), "1")

    codes = [code_of(lambda: program.dapr.delete_state(STORE, program.named("k"))) for _ in range(2)]

    assert (codes, read(program, "k")) == (["OK", "OK"], b"")


def test_many_keys_are_saved_and_read_at_once(program: Program) -> None:
    a, b, missing = (program.named(each) for each in ("a", "b", "x"))
    program.dapr.save_bulk_state(STORE, [StateItem(key=a, value="1"), StateItem(key=b, value="2")])

    found = program.dapr.get_bulk_state(STORE, [a, missing, b])

    assert {item.key: item.data for item in found.items} == {a: b"1", missing: b"", b: b"2"}
    assert {item.key: bool(item.etag) for item in found.items} == {a: True, missing: False, b: True}


def test_a_transaction_writes_and_deletes(program: Program) -> None:
    old, new = program.named("old"), program.named("new")
    program.dapr.save_state(STORE, old, "1")

    program.dapr.execute_state_transaction(
        STORE,
        [
            TransactionalStateOperation(key=new, data="2", operation_type=UPSERT),
            TransactionalStateOperation(key=old, operation_type=DELETE),
        ],
    )

    assert (read(program, "old"), read(program, "new")) == (b"", b"2")


def test_a_transaction_with_a_stale_etag_is_refused(program: Program) -> None:
    key = program.named("k")
    program.dapr.save_state(STORE, key, "1")
    stale = program.dapr.get_state(STORE, key).etag
    program.dapr.save_state(STORE, key, "2")
    operation = TransactionalStateOperation(key=key, data="3", etag=stale, operation_type=UPSERT)

    refused = code_of(lambda: program.dapr.execute_state_transaction(STORE, [operation]))

    assert (refused, read(program, "k")) == ("INTERNAL", b"2")


def test_a_key_ends_with_its_time_to_live(program: Program) -> None:
    program.dapr.save_state(STORE, program.named("k"), "1", state_metadata={"ttlInSeconds": "1"})
    program.dapr.save_state(STORE, program.named("kept"), "1", state_metadata={"ttlInSeconds": "-1"})
    before = read(program, "k")

    until(lambda: read(program, "k") == b"")  # it is the store's clock that ends it
    assert (before, read(program, "kept")) == (b"1", b"1")


def test_a_time_to_live_that_is_no_number_is_refused(program: Program) -> None:
    code = code_of(
        lambda: program.dapr.save_state(STORE, program.named("k"), "1", state_metadata={"ttlInSeconds": "soon"})
    )

    item = {"key": program.named("k"), "value": 1, "metadata": {"ttlInSeconds": "soon"}}
    assert (code, read(program, "k")) == ("INTERNAL", b"")
    assert post(program, f"state/{STORE}", [item]) == (500, "ERR_STATE_SAVE")


def test_unknown_stores_and_bad_keys_are_refused(program: Program) -> None:
    codes = [
        code_of(lambda: program.dapr.get_state("nowhere", "k")),
        code_of(lambda: program.dapr.save_state("nowhere", "k", "1")),
        code_of(lambda: program.dapr.save_state(STORE, "a||b", "1")),
    ]

    assert codes == ["INVALID_ARGUMENT"] * 3


def test_http_answers_as_dapr_does(program: Program) -> None:
    key, missing = program.named("k"), program.named("nothing")

    saved = post(program, f"state/{STORE}", [{"key": key, "value": {"a": 1}}])
    found = program.http.get(f"state/{STORE}/{key}")
    absent = program.http.get(f"state/{STORE}/{missing}")

    assert saved == (204, "")
    assert (found.status_code, found.json()) == (200, {"a": 1})
    assert '"' not in found.headers["etag"]
    assert (absent.status_code, absent.content) == (204, b"")


def test_http_refuses_as_dapr_does(program: Program) -> None:
    key = program.named("k")
    first = {"concurrency": "first-write"}
    post(program, f"state/{STORE}", [{"key": key, "value": 1}])

    stale = post(program, f"state/{STORE}", [{"key": key, "value": 2, "etag": "77", "options": first}])
    deleted = program.http.delete(f"state/{STORE}/{key}", headers={"if-match": "77"})
    unknown = post(program, "state/nowhere", [{"key": key, "value": 1}])
    bad_key = post(program, f"state/{STORE}", [{"key": "a||b", "value": 1}])
    no_json = program.http.post(f"state/{STORE}", content=b"{", headers={"content-type": "application/json"})

    assert stale == (409, "ERR_STATE_SAVE")
    assert (deleted.status_code, deleted.json()["errorCode"]) == (409, "ERR_STATE_DELETE")
    assert unknown == (400, "ERR_STATE_STORE_NOT_FOUND")
    assert bad_key == (400, "ERR_MALFORMED_REQUEST")
    assert (no_json.status_code, no_json.json()["errorCode"]) == (400, "ERR_MALFORMED_REQUEST")


def test_http_reads_many_keys(program: Program) -> None:
    a, missing = program.named("a"), program.named("x")
    post(program, f"state/{STORE}", [{"key": a, "value": "text"}])

    response = program.http.post(f"state/{STORE}/bulk", json={"keys": [a, missing]})

    found = {item["key"]: item for item in response.json()}
    assert response.status_code == 200
    assert found[a]["data"] == "text"
    assert found[a]["etag"]
    assert "data" not in found[missing]


def test_http_changes_keys_in_a_transaction(program: Program) -> None:
    a, b = program.named("a"), program.named("b")
    post(program, f"state/{STORE}", [{"key": b, "value": 1}])
    operations = [
        {"operation": "upsert", "request": {"key": a, "value": {"n": 2}}},
        {"operation": "delete", "request": {"key": b}},
    ]

    done = post(program, f"state/{STORE}/transaction", {"operations": operations})

    assert done == (204, "")
    assert json.loads(read(program, "a")) == {"n": 2}
    assert read(program, "b") == b""


def test_what_http_saves_is_what_grpc_reads(program: Program) -> None:
    post(program, f"state/{STORE}", [{"key": program.named("text"), "value": "ünï"}])
    post(program, f"state/{STORE}", [{"key": program.named("number"), "value": 1.5}])

    assert json.loads(read(program, "text")) == "ünï"
    assert json.loads(read(program, "number")) == 1.5
