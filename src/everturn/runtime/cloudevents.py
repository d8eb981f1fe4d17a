"""The envelope of a published message: CloudEvents 1.0 in JSON, with Dapr's extensions.

https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-cloudevents/ and components-contrib
pubsub/envelope.go. What was sent as JSON is taken over as it is, not decoded.
"""

import base64
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from everturn.runtime.raw_json import JsonError, JsonReader, raw_object

CLOUD_EVENT_JSON = "application/cloudevents+json"
_DEFAULT_TYPE = "com.dapr.event.sent"
# W3C trace context, version 00 (https://www.w3.org/TR/trace-context/#traceparent-header).
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Publication:
    """A request to publish: what was sent, by whom, to where. `metadata`: of the query, without its prefix."""

    app_id: str
    pubsub: str
    topic: str
    body: bytes
    headers: Mapping[str, str]
    metadata: Mapping[str, str]


def envelope(publication: Publication, now: float) -> bytes:
    """The CloudEvent that subscribers get. Raises JsonError where the body says it is one and is no JSON object."""
    content_type = publication.headers.get("content-type", "")
    if publication.metadata.get("rawPayload") == "true":
        event = {**_new(publication, now), **_raw_payload(publication.body)}
    elif _media_type(content_type) == CLOUD_EVENT_JSON:
        event = {**_new(publication, now), **_given(publication.body)}
    else:
        event = {**_new(publication, now), **_data(publication.body, content_type or "text/plain")}
    event |= {
        name.removeprefix("cloudevent."): json.dumps(value)
        for name, value in publication.metadata.items()
        if name.startswith("cloudevent.")
    }
    event |= _delivery_fields(publication)
    return ("{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in event.items()) + "}").encode()


def _new(publication: Publication, now: float) -> dict[str, str]:
    """What an event has of its own where the publisher said nothing, as JSON texts."""
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": f'"{uuid.uuid4()}"',
        "specversion": '"1.0"',
        "type": f'"{_DEFAULT_TYPE}"',
        "source": json.dumps(publication.app_id),
        "time": f'"{moment}"',
    }


def _given(body: bytes) -> dict[str, str]:
    # A null attribute is an absent one; null data is data (CloudEvents 1.0 JSON format, sections 2.2 and 3.1).
    return {name: raw for name, raw in raw_object(body).items() if raw != "null" or name == "data"}


def _data(body: bytes, content_type: str) -> dict[str, str]:
    fields = {"datacontenttype": json.dumps(content_type)}
    match _media_type(content_type):
        case "application/json":
            return fields | {"data": _json_or_text(body)}
        case "application/octet-stream":
            return fields | {"data_base64": _base64(body)}
        case _:
            return fields | {"data": _text(body)}


def _raw_payload(body: bytes) -> dict[str, str]:
    return {"datacontenttype": '"application/octet-stream"', "data_base64": _base64(body)}


def _delivery_fields(publication: Publication) -> dict[str, str]:
    given = publication.headers.get("traceparent", "")
    trace = given if _TRACEPARENT.match(given) else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    return {
        "topic": json.dumps(publication.topic),
        "pubsubname": json.dumps(publication.pubsub),
        "traceid": f'"{trace}"',
        "traceparent": f'"{trace}"',
        "tracestate": json.dumps(publication.headers.get("tracestate", "")),
    }


def _json_or_text(body: bytes) -> str:
    try:
        reader = JsonReader(body)
        raw = reader.raw()
        reader.finish()
    except JsonError:
        return _text(body)
    return raw


def _text(body: bytes) -> str:
    return json.dumps(body.decode("utf-8", "replace"))


def _base64(body: bytes) -> str:
    return f'"{base64.b64encode(body).decode()}"'


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
