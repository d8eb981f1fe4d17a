"""Publishing and subscribing: the subscriptions of a file, and those of a stream."""

import base64
import json
import queue
import threading
from typing import Any

import pytest
from dapr.clients.grpc._response import TopicEventResponse
from dapr.clients.grpc.subscription import Subscription

from tests.conformance.sdk.app import PATIENCE_S, Answer
from tests.conformance.sdk.program import Calls, Program, code_of


def answer(status: str) -> Answer:
    return Answer(body=json.dumps({"status": status}).encode(), headers={"content-type": "application/json"})


def publish(program: Program, topic: str = "news", *, pubsub: str = "pubsub") -> str:
    """Publish a message of this test; the text that it is known by."""
    text = program.named("message")
    program.dapr.publish_event(pubsub, topic, json.dumps({"text": text}), data_content_type="application/json")
    return text


def test_a_message_arrives_as_a_cloud_event(program: Program) -> None:
    text = publish(program)

    (asked,) = program.sidecar.app.wait_for("/news", text)

    event = asked.event
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/cloudevents+json")
    assert event["data"] == {"text": text}
    assert {
        name: event[name] for name in ("specversion", "type", "source", "topic", "pubsubname", "datacontenttype")
    } == {
        "specversion": "1.0",
        "type": "com.dapr.event.sent",
        "source": program.sidecar.app_id,
        "topic": "news",
        "pubsubname": "pubsub",
        "datacontenttype": "application/json",
    }
    assert {"id", "time", "traceid", "traceparent"} <= set(event)


def test_plain_text_and_bytes_arrive_as_they_are(program: Program) -> None:
    text = program.named("words")
    program.dapr.publish_event("pubsub", "news", text, data_content_type="text/plain")
    program.dapr.publish_event("pubsub", "news", b"\x00\xff", data_content_type="application/octet-stream")

    (plain,) = program.sidecar.app.wait_for("/news", text)
    (raw,) = program.sidecar.app.wait_for("/news", '"data_base64":"AP8="')

    assert (plain.event["data"], plain.event["datacontenttype"]) == (text, "text/plain")
    assert raw.event["datacontenttype"] == "application/octet-stream"


def test_a_cloud_event_keeps_its_id_and_source(program: Program) -> None:
    event = {"specversion": "1.0", "id": program.named("id"), "source": "mine", "type": "my.type", "data": {"n": 1}}
    content_type = "application/cloudevents+json"
    program.dapr.publish_event("pubsub", "news", json.dumps(event), data_content_type=content_type)

    (asked,) = program.sidecar.app.wait_for("/news", program.named("id"))

    arrived = asked.event
    assert {name: arrived[name] for name in event} == event
    assert (arrived["topic"], arrived["pubsubname"]) == ("news", "pubsub")


def test_the_same_event_twice_arrives_twice(program: Program) -> None:
    event = {"specversion": "1.0", "id": program.named("id"), "source": "mine", "type": "my.type", "data": 1}
    for _ in range(2):
        program.dapr.publish_event(
            "pubsub", "news", json.dumps(event), data_content_type="application/cloudevents+json"
        )

    assert len(program.sidecar.app.wait_for("/news", program.named("id"), 2)) == 2


def test_metadata_of_a_message_changes_its_cloud_event(program: Program) -> None:
    text = program.named("message")
    program.dapr.publish_event(
        "pubsub", "news", text, data_content_type="text/plain",
        publish_metadata={"cloudevent.id": program.named("id"), "cloudevent.source": "elsewhere"},
    )  # fmt: skip

    (asked,) = program.sidecar.app.wait_for("/news", text)

    assert (asked.event["id"], asked.event["source"]) == (program.named("id"), "elsewhere")


def test_a_raw_message_arrives_in_base64_where_raw_ones_are_subscribed_to(program: Program) -> None:
    raw = program.named("raw").encode()
    program.dapr.publish_event("pubsub", "raw-news", raw, publish_metadata={"rawPayload": "true"})

    (asked,) = program.sidecar.app.wait_for("/raw-news", base64.b64encode(raw).decode())

    assert asked.headers["content-type"] == "application/cloudevents+json"
    assert asked.event["datacontenttype"] == "application/octet-stream"
    assert {"id", "specversion", "type", "source", "topic", "pubsubname"} <= set(asked.event)


def test_what_was_taken_does_not_come_again(program: Program) -> None:
    text = publish(program)
    program.sidecar.app.wait_for("/news", text)
    later = program.named("later")
    program.dapr.publish_event("pubsub", "news", later, data_content_type="text/plain")
    program.sidecar.app.wait_for("/news", later)

    assert len(program.sidecar.app.asked("/news", text)) == 1


@pytest.mark.parametrize(
    "refusal", [answer("DROP"), answer("RETRY"), answer("SOMETHING"), Answer(404), Answer(400), Answer(500)]
)
def test_without_a_policy_what_is_not_taken_goes_to_the_dead_letters_at_once(program: Program, refusal: Answer) -> None:
    text = program.named("message")
    program.sidecar.app.script(text, refusal, Answer())
    publish(program)

    (letter,) = program.sidecar.app.wait_for("/dead-news", text)

    assert len(program.sidecar.app.asked("/news", text)) == 1
    assert (letter.event["topic"], letter.event["data"]) == ("news", {"text": text})


@pytest.mark.parametrize("refusal", [answer("RETRY"), Answer(500), Answer(400)])
def test_with_a_policy_it_is_tried_again(program: Program, refusal: Answer) -> None:
    text = program.named("message")
    program.sidecar.app.script(text, refusal, refusal, answer("SUCCESS"))
    publish(program, "letters", pubsub="patient")

    first, second, third = program.sidecar.app.wait_for("/letters", text, 3)

    assert first.event["id"] == second.event["id"] == third.event["id"]


def test_out_of_retries_it_goes_to_the_dead_letters(program: Program) -> None:
    text = program.named("message")
    program.sidecar.app.script(text, *[answer("RETRY")] * 3, Answer())
    publish(program, "letters", pubsub="patient")

    (letter,) = program.sidecar.app.wait_for("/dead-letters", text)

    assert len(program.sidecar.app.asked("/letters", text)) == 3
    assert letter.event["data"] == {"text": text}


@pytest.mark.parametrize("refusal", [answer("DROP"), Answer(404)])
def test_with_a_policy_too_a_drop_goes_to_the_dead_letters_at_once(program: Program, refusal: Answer) -> None:
    text = program.named("message")
    program.sidecar.app.script(text, refusal, Answer())
    publish(program, "letters", pubsub="patient")

    program.sidecar.app.wait_for("/dead-letters", text)

    assert len(program.sidecar.app.asked("/letters", text)) == 1


def test_messages_are_published_in_bulk(program: Program) -> None:
    texts = [program.named(f"{number}.") for number in range(3)]

    response = program.dapr.publish_events("pubsub", "news", texts, data_content_type="text/plain")

    for text in texts:
        program.sidecar.app.wait_for("/news", text)
    assert response.failed_entries == []


def test_an_unknown_pubsub_is_refused(program: Program) -> None:
    over_http = program.http.post("publish/nowhere/news", json={})

    assert code_of(lambda: program.dapr.publish_event("nowhere", "news", "x")) == "INVALID_ARGUMENT"
    assert (over_http.status_code, over_http.json()["errorCode"]) == (404, "ERR_PUBSUB_NOT_FOUND")


def test_http_publishes_and_answers_without_a_body(program: Program) -> None:
    text = program.named("message")

    response = program.http.post("publish/pubsub/news", json={"text": text})

    (asked,) = program.sidecar.app.wait_for("/news", text)
    assert (response.status_code, response.content) == (204, b"")
    assert asked.event["data"] == {"text": text}


def next_of(subscription: Subscription) -> Any:
    """The next message; the SDK itself would wait for ever."""
    arrived: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: arrived.put(subscription.next_message()), daemon=True).start()
    return arrived.get(timeout=PATIENCE_S)


def test_a_stream_gets_what_is_published(program: Program) -> None:
    topic = program.named("topic")
    subscription = program.dapr.subscribe("pubsub", topic)
    text = publish(program, topic)

    message = next_of(subscription)
    subscription.respond_success(message)
    subscription.close()

    assert message.data() == {"text": text}
    assert (message.topic(), message.pubsub_name(), message.source()) == (topic, "pubsub", program.sidecar.app_id)


def test_a_stream_gets_messages_one_after_the_other(program: Program) -> None:
    topic, taken = program.named("topic"), Calls()

    def take(message: Any) -> TopicEventResponse:
        taken.add(message.data())
        return TopicEventResponse("success")

    close = program.dapr.subscribe_with_handler("pubsub", topic, take)
    for number in range(5):
        program.dapr.publish_event("pubsub", topic, str(number), data_content_type="text/plain")

    seen = taken.wait_for(5)
    close()
    assert sorted(seen) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("how", ["respond_drop", "respond_retry"])
def test_what_a_stream_does_not_take_goes_to_its_dead_letters(program: Program, how: str) -> None:
    topic = program.named("topic")
    dead = program.dapr.subscribe("pubsub", f"{topic}-dead")
    subscription = program.dapr.subscribe("pubsub", topic, dead_letter_topic=f"{topic}-dead")
    text = publish(program, topic)

    getattr(subscription, how)(next_of(subscription))
    letter = next_of(dead)
    dead.respond_success(letter)
    for each in (subscription, dead):
        each.close()

    assert letter.data() == {"text": text}


def test_a_stream_with_a_policy_gets_a_message_again(program: Program) -> None:
    topic = program.named("topic")
    subscription = program.dapr.subscribe("patient", topic)
    publish(program, topic, pubsub="patient")

    first = next_of(subscription)
    subscription.respond_retry(first)
    second = next_of(subscription)
    subscription.respond_success(second)
    subscription.close()

    assert first.id() == second.id()
