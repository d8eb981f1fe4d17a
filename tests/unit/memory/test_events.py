import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from everturn.memory.domain import Arrival
from everturn.memory.events import BadEvent, event_id_of, read_event

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
        turn_id="t",
        sequence=3,
        event_id=None,
        message="canary message",
        reply="canary reply",
        accepted_at="2026-01-31T12:00:00.000Z",
        replied_at="2026-01-31T12:00:01.000Z",
    )


def test_data_may_be_a_json_string_or_base64() -> None:
    text = json.dumps(DATA)

    as_string = read(event(text))
    as_base64 = read(event(None, data_base64=base64.b64encode(text.encode()).decode()))

    assert as_string == as_base64 == read(event())


def test_unknown_fields_are_ignored() -> None:
    assert read(event(changed(mood="fine"), datacontenttype="application/json")) == read(event())


@pytest.mark.parametrize("fields", [{"sequence": "absent"}, {"turn_id": "absent"}, {"turn_id": None, "sequence": -4}])
def test_an_event_without_a_turn_id_and_a_sequence_is_known_by_its_own_id(fields: dict[str, object]) -> None:
    arrival = read(event(changed(**fields)))

    assert (arrival.sequence, arrival.event_id) == (None, "e")


def test_a_turn_without_a_sequence_and_an_event_id_is_known_by_its_turn_id() -> None:
    assert read(event(changed(sequence=None), id=None)).event_id == "t"


def test_the_events_own_time_stands_in_for_missing_times() -> None:
    arrival = read(event(changed(accepted_at="absent", occurred_at="absent"), time="2026-01-31T14:00:00+02:00"))

    assert (arrival.accepted_at, arrival.replied_at) == ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z")


def test_a_message_without_a_time_of_its_own_is_not_later_than_its_reply() -> None:
    arrival = read(event(changed(accepted_at="absent")))

    assert (arrival.accepted_at, arrival.replied_at) == ("2026-01-31T12:00:01.000Z", "2026-01-31T12:00:01.000Z")


@pytest.mark.parametrize("time", [None, 5, "yesterday", "9999-12-31T23:59:59-23:00"])
def test_the_time_of_arrival_stands_in_where_no_time_can_be_read(time: object) -> None:
    arrival = read(event(changed(accepted_at="soon", occurred_at=None), time=time))

    assert (arrival.accepted_at, arrival.replied_at) == ("2026-01-31T13:00:00.000Z", "2026-01-31T13:00:00.000Z")


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
