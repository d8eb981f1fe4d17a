"""One whole trace of a turn whose process was killed in the middle, as a collector gets it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from everturn.testing.model_answers import Held, completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import PATIENCE_S, Client, Machine

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
ASKED = ("GET /memories/{user_id}", "GET /conversations/{session_id}")


@dataclass(frozen=True, slots=True)
class Span:
    service: str
    name: str
    span_id: str
    parent_id: str
    attributes: dict[str, str | int]


class Collector:
    """An OTLP receiver over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()

    def take(self, body: bytes) -> None:
        """Called in a thread of the receiver."""
        self.bodies.append(body)
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def has(self, *names: str) -> None:
        """Return once the trace has spans of these names."""
        async with asyncio.timeout(PATIENCE_S):
            while not {span.name for span in self.spans(TRACE)}.issuperset(names):
                self._arrived.clear()
                await self._arrived.wait()

    def spans(self, trace_id: str) -> list[Span]:
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"]
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    values = {p.key: p.value.string_value or p.value.int_value for p in span.attributes}
                    if span.trace_id.hex() == trace_id:
                        found.append(Span(service, span.name, span.span_id.hex(), span.parent_span_id.hex(), values))
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_turn_that_was_killed_in_the_middle_is_one_trace(machine: Machine, client: Client) -> None:
    async with ModelEndpoint(otherwise=completion("A secret reply")) as endpoint:
        with collecting() as collector:
            machine.settings |= {
                "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
                "EVERTURN_MODEL_NAME": "scripted",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "50",
            }
            endpoint.script(tool_calls(("get_current_time", "{}")), Held(asyncio.Event(), completion("never given")))
            first = await machine.up()
            headers = {"Prefer": "respond-async", "traceparent": f"00-{TRACE}-{CALLER}-01"}
            await client.say("A secret message", session="a-private-session", headers=headers)
            await endpoint.asked(2)
            await collector.has("POST /chat/", "execute_tool get_current_time", *ASKED)
            await first.kill()

            await machine.up()
            await collector.has("save_conversation", "turn", "store_turn")
            spans = {span.name: span for span in collector.spans(TRACE)}

    parents = {name: next((n for n, o in spans.items() if o.span_id == s.parent_id), "") for name, s in spans.items()}
    assert spans["POST /chat/"].parent_id == CALLER
    assert parents == {
        "POST /chat/": "",
        "turn": "POST /chat/",
        "fetch_context": "turn",
        **dict.fromkeys(ASKED, "fetch_context"),
        "generate_response": "turn",
        "chat scripted": "generate_response",
        "execute_tool get_current_time": "",  # of the attempt that the kill cut off
        "save_conversation": "turn",
        "store_turn": "turn",
    }
    memory = {name for name, span in spans.items() if span.service == "agent-memory-service"}
    assert memory == {*ASKED, "store_turn"}
    assert spans["turn"].attributes["everturn.status"] == "completed"
    assert spans["chat scripted"].attributes["gen_ai.operation.name"] == "chat"
    sent = b"".join(collector.bodies)
    assert not [word for word in (b"secret", b"junaid", b"a-private-session") if word in sent]
