"""HTTP/1.1 on a socket with limits: uvicorn's protocol over httptools has none for heads and pipelining.

uvicorn's h11 limits the size of a head alone; hypercorn and granian neither the pipelining nor the time of a head. So
the protocol that serves fastest is bounded here: what comes is fed to the parser in small pieces, and not at all while
a request waits behind another.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
# A client that reads nothing of its answer for so long has left.
_WRITE_TIMEOUT_S = 75.0
# So long, and for so many bytes, a client may go on that has been refused: it reads the answer then.
_LINGER_S, _MOST_PASSED_OVER = 1.0, 1_048_576
# Of a piece of so many bytes come at most 230 requests of the shortest kind; each takes about 3 kB.
_PIECE_BYTES = 4_096


@dataclass(eq=False, slots=True)
class Connections:
    """The connections of one listener, at most `limit`. `refused` is called with the reason for each that is refused.

    A head has to come within `head_timeout_s`, the next request within `keep_alive_s` (seconds).

    A connection in excess takes the place of the one that has been idle for longest. If none is, it is closed itself,
    without an answer: there is no descriptor to spare for one.
    """

    limit: int
    refused: Callable[[str], None]
    head_timeout_s: float = 20.0
    keep_alive_s: float = 75.0
    _open: set["BoundedHttp"] = field(default_factory=set, init=False)
    # In the order in which they became idle.
    _idle: dict["BoundedHttp", None] = field(default_factory=dict, init=False)

    def opened(self, connection: "BoundedHttp") -> bool:
        """Whether there is a place for it."""
        if len(self._open) >= self.limit:
            oldest = next(iter(self._idle), None)
            self.refused("full")
            if oldest is None:
                return False
            self.closed(oldest)
            oldest.transport.abort()
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def busy(self, connection: "BoundedHttp") -> None:
        self._idle.pop(connection, None)

    def idle(self, connection: "BoundedHttp") -> None:
        if connection in self._open:
            self._idle[connection] = None

    def closed(self, connection: "BoundedHttp") -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)


class _Refused(Exception):
    """Ends the parsing of a head; which answer it gets is noted before."""


class _HeldFlow(FlowControl):
    """uvicorn reads on after each answer; not if what was read before has not been parsed."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class _Closing:
    """A transport that uvicorn may close during a request's body, without the answer getting lost."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.write, self.is_closing = transport.write, transport.is_closing
        self.close = close

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class BoundedHttp(HttpToolsProtocol):
    """A connection within the limits above. What breaks them is answered by a problem (RFC 9457), and closed."""

    bound: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = transport
        self.transport = _Closing(transport, self._close)  # type: ignore[assignment]
        self.flow: _HeldFlow = _HeldFlow(transport)
        self.timeout_keep_alive = self.bound.keep_alive_s  # type: ignore[assignment]
        self._unread = bytearray()
        # Bytes since a head or a part of a body ended: of the head, of trailers, of what is neither.
        self._head_bytes = 0
        self._in_head = True
        self._begun = False
        self._moved = False
        self._trailers = 0
        self._answered, self._passed_over = False, 0
        self._refusal: tuple[int, str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        if self.bound.opened(self):
            self._set_timer()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.bound.closed(self)
        self._unread.clear()
        self._clear_timer()
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)

    def _is_over(self) -> bool:
        return self._answered or self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        if self._is_over():
            self._passed_over += len(data)
            if self._passed_over > _MOST_PASSED_OVER:
                self.transport.abort()
            return
        self._unread += data
        self._feed()

    def _feed(self) -> None:
        """Parse what is there, as long as no request waits behind another."""
        while self._unread and not self.pipeline and not self._is_over():
            piece = bytes(self._unread[:_PIECE_BYTES])
            del self._unread[:_PIECE_BYTES]
            self._moved = False
            super().data_received(piece)
            self._head_bytes = 0 if self._moved else self._head_bytes + len(piece)
            if self._head_bytes > MAX_HEAD_BYTES and not self._is_over():
                self._refusal = _too_large()
                self.send_400_response("")
        if self._unread and not self._is_over():
            self.flow.hold()
        else:
            self._unread.clear()
            self._release()
        self._watch()

    def _release(self) -> None:
        if self.flow.held:
            self.flow.held = False
            if not self.pipeline:
                self.flow.resume_reading()

    def _watch(self) -> None:
        """The time of a head, or of a body that nobody reads any more, is limited; that of work is not, here."""
        if self._is_over():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._clear_timer()
            self.bound.busy(self)
        else:
            self.bound.idle(self)
            if (self._begun or not self._in_head) and self._timer is None:
                self._unset_keepalive_if_required()
                self._set_timer()
            elif self._in_head and not self._begun and self.cycle is not None:
                self._clear_timer()
                if self.timeout_keep_alive_task is None:
                    self.timeout_keep_alive_task = self.loop.call_later(
                        self.bound.keep_alive_s, self.timeout_keep_alive_handler
                    )

    def _set_timer(self) -> None:
        self._timer = self.loop.call_later(self.bound.head_timeout_s, self._too_late)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        if self._is_over():
            return
        self.bound.refused("slow" if self._begun else "silent")
        if self._begun and self._in_head:
            self._answer(408, f"The head of the request did not come within {self.bound.head_timeout_s:.0f} seconds.")
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(_WRITE_TIMEOUT_S, self._unread_answer)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _unread_answer(self) -> None:
        self.bound.refused("unread")
        self.transport.abort()

    # What the parser calls.
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._begun = True
        self._trailers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: it is no header (RFC 9110 section 6.5.1)
            self._trailers += 1
            if self._trailers > MAX_HEADERS:
                self._refuse()
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._refuse()

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse()
        if self.parser.get_http_version() == "1.1" and all(name != b"host" for name, _ in self.headers):
            self._refusal = (400, "malformed", "A request of HTTP/1.1 names its host (RFC 9112 section 3.2).")
            raise _Refused
        self._moved = True
        self._in_head = self._begun = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unread:
            self._feed()
        else:
            self._watch()

    def _refuse(self) -> None:
        self._refusal = _too_large()
        raise _Refused

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What is no request, or has too large a head."""
        status, reason, detail = self._refusal or (400, "malformed", "This is no HTTP request that can be read.")
        self.bound.refused(reason)
        self._answer(status, detail)

    def _answer(self, status: int, detail: str) -> None:
        line = STATUS_LINE[status]
        title = line.split(b" ", 2)[2].strip().decode()
        body = msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail})
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(line + head + body)
        self._linger()

    def _close(self) -> None:
        """Close the connection after an answer; gently, if the client is still sending what was answered."""
        if self._in_head or self._is_over():
            self._connection.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Closed at once, with something unread, it would be reset, and the answer lost (RFC 9112 section 9.6)."""
        self._answered = True
        self._clear_timer()
        self._unread.clear()
        self._release()
        self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)


def _too_large() -> tuple[int, str, str]:
    detail = f"The head of a request may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers."
    return 431, "head", detail


def bounded_by(connections: Connections) -> type[BoundedHttp]:
    """The protocol for the connections of one listener, as uvicorn's `http` setting."""
    return type("BoundedHttp", (BoundedHttp,), {"bound": connections})
