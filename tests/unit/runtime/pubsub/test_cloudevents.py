"""The envelope that subscribers get."""

import base64
import json
from typing import Any

import pytest

from everturn.dapr.wire import JsonError
from everturn.runtime.pubsub.broker import Publication, envelope

NOW = 1_000_000_000.5
CLOUD_EVENT = "application/cloudevents+json"


def publication(body: bytes, content_type: str = "application/json", **metadata: str) -> Publication:
    return Publication("app-a", "pubsub", "orders", body, {"content-type": content_type}, metadata)


def published(body: bytes, content_type: str = "application/json", **metadata: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(envelope(publication(body, content_type, **metadata), NOW))
    return event


def test_plain_json_is_wrapped() -> None:
    event = published(b'{"a":1}')

    assert event["data"] == {"a": 1}
    assert event["datacontenttype"] == "application/json"
    assert (event["specversion"], event["type"], event["source"]) == ("1.0", "com.dapr.event.sent", "app-a")
    assert (event["topic"], event["pubsubname"]) == ("orders", "pubsub")
    assert event["time"] == "2001-09-09T01:46:40.500Z"
    assert event["traceid"] == event["traceparent"]
    assert event["tracestate"] == ""


def test_each_wrapped_message_has_an_id_of_its_own() -> None:
    assert published(b"1")["id"] != published(b"1")["id"]


def test_a_cloud_event_keeps_what_it_has_and_is_completed() -> None:
    given = {"id": "t-1", "source": "chat", "type": "x", "specversion": "1.0", "data": {"a": 1}, "mine": 7}

    event = published(json.dumps(given).encode(), f"{CLOUD_EVENT}; charset=utf-8")

    assert event | given == event
    assert set(event) - set(given) == {"time", "topic", "pubsubname", "traceid", "traceparent", "tracestate"}


def test_a_cloud_event_without_its_own_attributes_gets_them() -> None:
    event = published(b'{"data":null,"id":null}', CLOUD_EVENT)

    assert event["id"]
    assert event["source"] == "app-a"
    assert event["data"] is None


def test_the_data_of_a_cloud_event_stays_as_it_was_written() -> None:
    raw = b'{"n": 1.10, "big": 12345678901234567890123}'

    body = envelope(publication(b'{"id":"1","data":' + raw + b"}", CLOUD_EVENT), NOW)

    assert raw in body


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1}x', b"\xff", b'{"data":"\xff"}', b'{"data":NaN}'])
def test_what_says_it_is_a_cloud_event_and_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(JsonError):
        envelope(publication(body, CLOUD_EVENT), NOW)


def test_text_is_data_as_text() -> None:
    event = published("grüß".encode(), "text/plain")

    assert (event["data"], event["datacontenttype"]) == ("grüß", "text/plain")


@pytest.mark.parametrize(("body", "text"), [(b"{oops", "{oops"), (b'"\xff"', '"\ufffd"'), (b"NaN", "NaN"), (b"", "")])
def test_json_that_is_none_is_data_as_text(body: bytes, text: str) -> None:
    assert published(body)["data"] == text


def test_bytes_are_data_in_base64() -> None:
    event = published(b"\x00\xff", "application/octet-stream")

    assert base64.b64decode(event["data_base64"]) == b"\x00\xff"
    assert "data" not in event


def test_a_raw_payload_is_data_in_base64_whatever_its_type() -> None:
    event = published(b'{"id":"x"}', CLOUD_EVENT, rawPayload="true")

    assert base64.b64decode(event["data_base64"]) == b'{"id":"x"}'
    assert event["id"] != "x"


def test_attributes_can_be_given_in_the_query() -> None:
    event = published(b"1", **{"cloudevent.id": "t-1", "cloudevent.type": "my.type"})

    assert (event["id"], event["type"]) == ("t-1", "my.type")


def test_the_trace_of_the_request_is_passed_on() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"content-type": "application/json", "traceparent": trace, "tracestate": "a=b"}

    event = json.loads(envelope(Publication("app-a", "pubsub", "orders", b"1", headers, {}), NOW))

    assert (event["traceparent"], event["tracestate"]) == (trace, "a=b")


def test_a_trace_that_is_none_is_replaced() -> None:
    headers = {"content-type": "application/json", "traceparent": '"},"x":{'}

    event = json.loads(envelope(Publication("app-a", "pubsub", "orders", b"1", headers, {}), NOW))

    assert event["traceparent"].startswith("00-")
