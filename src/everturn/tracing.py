"""Traces by OpenTelemetry, if `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a receiver.

A turn keeps the trace of the request that brought it with its facts, so its spans are one trace however often it
crashed and whichever replica ran it. No text of a message, a prompt or an answer is in a span. The other standard
variables count as well (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/); spans are
sent by OTLP over HTTP. Without a collector nothing of OpenTelemetry is imported.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from everturn.errors import SettingError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

HEADER = "traceparent"
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NANOSECONDS = 1_000_000_000

Attributes = Mapping[str, str | int]


_SPAN_ID: ContextVar[int | None] = ContextVar("span_id", default=None)


class Recording:
    """What happens in a span, which may not be recorded at all."""

    def __init__(self, span: "Span | None" = None) -> None:
        self._span = span

    def note(self, **attributes: str | int) -> None:
        """Set attributes; `__` in a name stands for a dot."""
        if self._span is not None:
            self._span.set_attributes({name.replace("__", "."): value for name, value in attributes.items()})

    def rename(self, name: str) -> None:
        """Give the span a better name."""
        if self._span is not None:
            self._span.update_name(name)


@cache
def is_on() -> bool:
    """Whether spans are recorded. Raises SettingError for a protocol that is not spoken."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, _ENDPOINTS)):
        return False
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not spoken here, http/protobuf is")
    return True


@contextmanager
def span(
    service: str, name: str, *, parent: str | None = None, kind: str = "INTERNAL", attributes: Attributes | None = None
) -> Iterator[Recording]:
    """Record what the block does as `name`, of `service`.

    `parent`: a `traceparent`; without one, the span that is current here. `kind`: a name of `SpanKind`.
    """
    if not is_on():
        yield Recording()
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

    with _tracer(service).start_as_current_span(
        name,
        context=_context(parent) if parent else None,
        kind=SpanKind[kind],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as recorded:
        try:
            yield Recording(recorded)
        except BaseException as error:
            # Its type alone: a message could hold what a user wrote.
            recorded.set_attribute("error.type", getattr(error, "kind", None) or type(error).__name__)
            recorded.set_status(Status(StatusCode.ERROR))
            raise


def current() -> str:
    """The `traceparent` of the span that is current here; empty if there is none."""
    return headers().get(HEADER, "")


def headers() -> dict[str, str]:
    """What a request to another service carries, so that its spans are in this trace."""
    carrier: dict[str, str] = {}
    if is_on():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def inside(traceparent: str, name: str) -> str:
    """The `traceparent` for parts of a long-running thing below `traceparent`, whose own span `finished` records."""
    if not traceparent:
        return ""
    version, trace_id, _, flags = traceparent.split("-")[:4]
    return f"{version}-{trace_id}-{_span_id(name):016x}-{flags}"


def finished(service: str, name: str, *, parent: str, begun: datetime, instance: str, attributes: Attributes) -> None:
    """Record the long-running thing `instance` (the `name` of `inside`), which began then and ends now."""
    if not parent or not is_on():
        return
    token = _SPAN_ID.set(_span_id(instance))
    try:
        started = int(begun.timestamp() * _NANOSECONDS)
        _tracer(service).start_span(name, _context(parent), attributes=attributes, start_time=started).end()
    finally:
        _SPAN_ID.reset(token)


def _context(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({HEADER: traceparent})


def _span_id(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) or 1


@cache
def _tracer(service: str) -> "Tracer":
    """Of each service of the process a provider, since that is one `service.name`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class Ids(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return _SPAN_ID.get() or super().generate_span_id()

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), id_generator=Ids())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("everturn")
