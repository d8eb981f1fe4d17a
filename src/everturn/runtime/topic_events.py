"""A CloudEvent as Dapr's gRPC messages carry it, and what is said of it."""

import base64
import json
from typing import Any
from urllib.parse import unquote

from dapr.proto.runtime.v1.appcallback_pb2 import TopicEventRequest, TopicEventResponse
from google.protobuf.struct_pb2 import Struct

from everturn.runtime.deliveries import TOPIC_HEADER
from everturn.sidecar.wire import Request, Response

# What has a field of its own in the message.
_OWN_FIELDS = frozenset(
    {"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64", "topic", "pubsubname"}
)
_STATUSES = {
    TopicEventResponse.TopicEventResponseStatus.SUCCESS: "SUCCESS",
    TopicEventResponse.TopicEventResponseStatus.RETRY: "RETRY",
    TopicEventResponse.TopicEventResponseStatus.DROP: "DROP",
}


def topic_event(delivery: Request, path: str) -> TopicEventRequest:
    """The message of a delivery, whose body is a CloudEvent in JSON; `path` is the route in the app."""
    event: dict[str, Any] = json.loads(delivery.body)
    extensions = Struct()
    extensions.update({name: value for name, value in event.items() if name not in _OWN_FIELDS})
    return TopicEventRequest(
        id=str(event.get("id", "")),
        source=str(event.get("source", "")),
        type=str(event.get("type", "")),
        spec_version=str(event.get("specversion", "")),
        data_content_type=str(event.get("datacontenttype", "")),
        data=_data(event),
        topic=unquote(delivery.headers.get(TOPIC_HEADER, "")),
        pubsub_name=str(event.get("pubsubname", "")),
        path=path,
        extensions=extensions,
    )


def verdict_response(status: int) -> Response:
    """What an app's verdict would be over HTTP; a status that is unknown is RETRY."""
    verdict = _STATUSES.get(status, "RETRY")  # type: ignore[call-overload]
    return Response(200, {"content-type": "application/json"}, json.dumps({"status": verdict}).encode())


def _data(event: dict[str, Any]) -> bytes:
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    data = event.get("data")
    is_json = "json" in str(event.get("datacontenttype", "application/json"))
    if isinstance(data, str) and not is_json:
        return data.encode()
    return b"" if data is None else json.dumps(data, ensure_ascii=False).encode()
