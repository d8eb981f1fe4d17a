import base64
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from everturn.contracts.events import ConversationUpdated
from everturn.memory.domain import Arrival, ByEvent, ByTurn, StoredTurn, Turn
from everturn.memory.subscriptions import BadEvent, EventData, event_id_of, read_event

RECEIVED_AT = datetime(2026, 1, 31, 13, 0, 0, tzinfo=UTC)
DATA = {
    "event_type": "ConversationUpdated",
    "user_id": "u",
    "session_id": "s",
    "user_message": "canary message",
    "assistant_reply": "canary reply",
    "turn_id": "t",
    "sequence": 3,
    "accepted_at": "2026-01-31T12:00:00.000Z",
    "occurred_at": "2026-01-31T12:00:01.000Z",
}


def event(data: object = DATA, **envelope: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "e", "source": "chat", "data": data, **envelope}).encode()


def changed(**fields: object) -> dict[str, Any]:
    return {key: value for key, value in {**DATA, **fields}.items() if value != "absent"}


def read(body: bytes) -> Arrival:
    return read_event(body, RECEIVED_AT)


def test_an_event_tells_of_a_turn() -> None:
    assert read(event()) == Arrival(
        user_id="u",
        session_id="s",
        key=ByTurn("t", 3),
        turn=Turn(
            turn_id="t",
            text="canary message",
            reply="canary reply",
            accepted_at="2026-01-31T12:00:00.000Z",
            replied_at="2026-01-31T12:00:01.000Z",
        ),
    )


ONE = {"turn_id": "m", "sequence": 4, "user_message": "canary more", "occurred_at": "2026-01-31T12:00:00.500Z"}


def test_the_messages_that_the_reply_answers_as_well_are_a_part_of_the_turn() -> None:
    merged = read(event(changed(merged=[ONE, {**ONE, "occurred_at": "never"}]))).turn.merged

    assert [(one.turn_id, one.sequence, one.text) for one in merged] == 2 * [("m", 4, "canary more")]
    assert [one.accepted_at for one in merged] == ["2026-01-31T12:00:00.500Z", DATA["occurred_at"]]
    assert read(event(changed(merged=None))) == read(event(changed(merged=[]))) == read(event())


def test_a_merged_message_counts_for_the_size_of_its_turn() -> None:
    turn = read(event(changed(merged=[ONE]))).turn

    stored = StoredTurn(**msgspec.structs.asdict(turn), arrival=0, sequence=3)

    assert stored.texts == ("canary message", "canary more")
    assert stored.chars == len("canary message") + len("canary more") + len("canary reply")


@pytest.mark.parametrize("wrong", [{}, {**ONE, "user_message": None}, {**ONE, "sequence": "x"}, {**ONE, "turn_id": ""}])
def test_a_merged_message_of_another_shape_is_a_bad_event(wrong: dict[str, object]) -> None:
    with pytest.raises(BadEvent) as raised:
        read(event(changed(merged=[wrong])))

    assert "canary" not in raised.value.message


def test_every_field_of_the_event_that_is_of_the_turn_is_kept() -> None:
    of_the_conversation = {"event_type", "user_id", "session_id", "sequence"}

    kept = {field.encode_name for field in msgspec.structs.fields(Turn)} - {"unknown"}

    assert kept == set(ConversationUpdated.model_fields) - of_the_conversation


def test_every_field_of_the_event_is_read() -> None:
    assert {field.name for field in msgspec.structs.fields(EventData)} == set(ConversationUpdated.model_fields)


JUNK = {
    "envelope": event(more="JUNK"),
    "data": event(changed(more="JUNK")),
    "data in a string": event(json.dumps(DATA), more="JUNK"),
}


@pytest.mark.parametrize("heavy", ["[],", '{"":{}},', "1.5,", '"\U0001f600",'])
@pytest.mark.parametrize("place", JUNK)
def test_an_event_takes_at_most_ten_times_its_size(place: str, heavy: str) -> None:
    body = JUNK[place].replace(b'"JUNK"', f"[{heavy * (1_000_000 // len(heavy))}0]".encode())

    assert _bytes_taken(lambda: read(body)) <= 10 * len(body)


@pytest.mark.parametrize("heavy", ["[],", '{"":{}},', "1.5,"])
def test_a_member_of_another_kind_is_refused_before_it_is_built(heavy: str) -> None:
    text = event(changed(assistant_reply="JUNK"))
    body = text.replace(b'"JUNK"', f"[{heavy * (1_000_000 // len(heavy))}0]".encode())

    def refused() -> None:
        with pytest.raises(BadEvent):
            read(body)

    assert _bytes_taken(refused) <= 10 * len(body)


def _bytes_taken(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_data_may_be_a_json_string_or_base64() -> None:
    text = json.dumps(DATA)

    as_string = read(event(text))
    as_base64 = read(event(None, data_base64=base64.b64encode(text.encode()).decode()))

    assert as_string == as_base64 == read(event())


def test_unknown_fields_are_ignored() -> None:
    assert read(event(changed(mood="fine"), datacontenttype="application/json")) == read(event())


@pytest.mark.parametrize("fields", [{"sequence": "absent"}, {"turn_id": "absent"}, {"turn_id": None, "sequence": -4}])
def test_an_event_without_a_turn_id_and_a_sequence_is_known_by_its_own_id(fields: dict[str, object]) -> None:
    assert read(event(changed(**fields))).key == ByEvent("e")


def test_a_turn_without_a_sequence_and_an_event_id_is_known_by_its_turn_id() -> None:
    assert read(event(changed(sequence=None), id=None)).key == ByEvent("t")


def test_the_events_own_time_stands_in_for_missing_times() -> None:
    turn = read(event(changed(accepted_at="absent", occurred_at="absent"), time="2026-01-31T14:00:00+02:00")).turn

    assert (turn.accepted_at, turn.replied_at) == ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z")


def test_a_message_without_a_time_of_its_own_is_not_later_than_its_reply() -> None:
    turn = read(event(changed(accepted_at="absent"))).turn

    assert (turn.accepted_at, turn.replied_at) == ("2026-01-31T12:00:01.000Z", "2026-01-31T12:00:01.000Z")


@pytest.mark.parametrize("time", [None, 5, "yesterday", "9999-12-31T23:59:59-23:00"])
def test_the_time_of_arrival_stands_in_where_no_time_can_be_read(time: object) -> None:
    turn = read(event(changed(accepted_at="soon", occurred_at=None), time=time)).turn

    assert (turn.accepted_at, turn.replied_at) == ("2026-01-31T13:00:00.000Z", "2026-01-31T13:00:00.000Z")


BAD = {
    "no JSON": b"{",
    "not UTF-8": b'{"data":"\xff"}',
    "a lone surrogate": event("\ud800"),
    "deep nesting": b'{"data":' + b"[" * 100_000,
    "no object": b"[]",
    "no data": b'{"id":"e"}',
    "data that is no JSON": event("hello"),
    "data that is no object": event([DATA]),
    "data that is no base64": event(None, data_base64="*"),
    "no event type": event(changed(event_type="absent")),
    "another event type": event(changed(event_type="ConversationDeleted")),
    "no user": event(changed(user_id="absent")),
    "a blank session": event(changed(session_id=" ")),
    "a message that is no text": event(changed(user_message=5)),
    "NUL in the reply": event(changed(assistant_reply="a\x00b")),
    "sequence 0": event(changed(sequence=0)),
    "a huge sequence": event(changed(sequence=2**53)),
    "a sequence that is no number": event(changed(sequence="first")),
    "nothing to know it by": event(changed(turn_id="absent"), id=""),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_can_never_be_right_is_a_bad_event_and_its_text_is_not_told(body: bytes) -> None:
    with pytest.raises(BadEvent) as caught:
        read(body)

    assert "canary" not in caught.value.message


@pytest.mark.parametrize(("body", "event_id"), [(event(5), "e"), (b"{", None), (b"[]", None), (b'{"id":5}', None)])
def test_a_broken_event_is_named_by_its_id_where_it_has_one(body: bytes, event_id: str | None) -> None:
    assert event_id_of(body) == event_id
