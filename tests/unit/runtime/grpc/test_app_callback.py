"""An app that speaks `AppCallback` behind the runtime: subscriptions, deliveries, invocation, token."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.proto.common.v1.common_pb2 import InvokeRequest, InvokeResponse
from dapr.proto.runtime.v1 import appcallback_pb2 as pb
from dapr.proto.runtime.v1.appcallback_pb2_grpc import AppCallbackServicer, add_AppCallbackServicer_to_server
from google.protobuf.any_pb2 import Any as AnyMessage

from everturn.dapr.wire import Request, Response
from everturn.dapr.workflows import Sidecar
from everturn.errors import TransientError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.grpc.app_callback import GrpcAppTransport
from everturn.testing.clock import ManualClock
from tests.unit.runtime.grpc.task_hub_rig import until

HOST = "127.0.0.1"
SUCCESS, RETRY, DROP = 0, 1, 2


@dataclass
class Callee(AppCallbackServicer):  # type: ignore[misc]
    """The app, and what it received. `verdicts`: its answers to messages, in order; then SUCCESS."""

    messages: list[pb.TopicEventRequest] = field(default_factory=list)
    calls: list[InvokeRequest] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    verdicts: list[Any] = field(default_factory=list)

    def heard(self, topic: str) -> list[bytes]:
        return [message.data for message in self.messages if message.topic == topic]

    async def ListTopicSubscriptions(self, _request: Any, _context: Any) -> pb.ListTopicSubscriptionsResponse:  # noqa: N802
        news = pb.TopicSubscription(pubsub_name="pubsub", topic="news", dead_letter_topic="dead")
        news.routes.default = "news-route"
        return pb.ListTopicSubscriptionsResponse(
            subscriptions=[news, pb.TopicSubscription(pubsub_name="pubsub", topic="dead")]
        )

    async def OnTopicEvent(self, request: pb.TopicEventRequest, _context: Any) -> pb.TopicEventResponse:  # noqa: N802
        self.messages.append(request)
        verdict: Any = self.verdicts.pop(0) if self.verdicts else SUCCESS
        return pb.TopicEventResponse(status=verdict)

    async def OnInvoke(self, request: InvokeRequest, context: Any) -> InvokeResponse:  # noqa: N802
        if request.method == "break":
            raise RuntimeError("broken")
        if request.method != "ask":
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        self.calls.append(request)
        self.metadata = dict(context.invocation_metadata())
        return InvokeResponse(data=AnyMessage(value=b"answered"), content_type="text/plain")


@dataclass
class Beside:
    """The runtime, with the callee and another app that calls it."""

    callee: Callee
    runtime: EmbeddedRuntime
    caller: Sidecar
    clock: ManualClock

    async def send(self, method: str, target: str, body: bytes = b"", content_type: str = "text/plain") -> Response:
        headers = {"content-type": content_type, "x-mine": "yes"}
        return await self.caller.transport.send(Request(method, target, headers, body))


class Silent:
    """The calling app, which takes no messages."""

    async def send(self, _request: Request) -> Response:
        return Response(404)

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    callee, clock = Callee(), ManualClock()
    server = grpc.aio.server()
    add_AppCallbackServicer_to_server(callee, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    transport = GrpcAppTransport(f"{HOST}:{port}")
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions(clock=clock, app_api_token="sesame"))
    runtime.add_app("callee", transport)
    caller = runtime.add_app("caller", Silent())
    await runtime.start()
    await runtime.broker.subscribed("callee")
    try:
        yield Beside(callee, runtime, caller, clock)
    finally:
        await runtime.stop(0)
        await transport.close()
        await server.stop(0)


async def test_it_gets_what_it_subscribes_to(beside: Beside) -> None:
    await beside.send("POST", "/v1.0/publish/pubsub/news", json.dumps({"n": 1}).encode(), "application/json")

    await until(lambda: beside.runtime.broker.counts.delivered == 1)

    (message,) = beside.callee.messages
    assert (json.loads(message.data), message.data_content_type) == ({"n": 1}, "application/json")
    assert (message.topic, message.pubsub_name, message.path, message.source) == (
        "news",
        "pubsub",
        "news-route",
        "caller",
    )
    assert "traceparent" in message.extensions


async def test_a_message_that_it_wants_again_comes_again(beside: Beside) -> None:
    beside.callee.verdicts = [RETRY]
    await beside.send("POST", "/v1.0/publish/pubsub/news", b"twice")
    await until(lambda: beside.runtime.broker.counts.retried == 1)

    beside.clock.advance(60)
    await until(lambda: beside.runtime.broker.counts.delivered == 1)

    assert beside.callee.heard("news") == [b"twice", b"twice"]


async def test_a_message_that_it_drops_goes_to_the_dead_letters(beside: Beside) -> None:
    beside.callee.verdicts = [DROP]

    await beside.send("POST", "/v1.0/publish/pubsub/news", b"bad")
    await until(lambda: bool(beside.callee.heard("dead")))

    assert beside.callee.heard("dead") == [b"bad"]


async def test_it_is_called_with_method_body_headers_and_token(beside: Beside) -> None:
    answer = await beside.send("PUT", "/v1.0/invoke/callee/method/ask?x=1", b"what")

    (call,) = beside.callee.calls
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"answered", "text/plain")
    assert (call.data.value, call.content_type, call.http_extension.querystring) == (b"what", "text/plain", "x=1")
    assert beside.callee.metadata["x-mine"] == "yes"
    assert beside.callee.metadata["dapr-caller-app-id"] == "caller"
    assert beside.callee.metadata["dapr-api-token"] == "sesame"


@pytest.mark.parametrize(("method", "status"), [("nothing", 501), ("break", 500)])
async def test_a_call_that_fails_there_is_a_status(beside: Beside, method: str, status: int) -> None:
    answer = await beside.send("POST", f"/v1.0/invoke/callee/method/{method}")

    assert answer.status == status


async def test_an_app_that_is_not_there_is_unreachable(unused_tcp_port: int) -> None:
    transport = GrpcAppTransport(f"{HOST}:{unused_tcp_port}")

    with pytest.raises(TransientError) as raised:
        await transport.send(Request("GET", "/dapr/subscribe"))

    assert raised.value.kind == "unreachable"
    await transport.close()
