"""`HttpTransport`: requests over sockets, from a service to its sidecar, from a runtime to its app or to another."""

import re
from collections.abc import Mapping
from urllib.parse import quote

# Annotations in quotes: a process that opens no such transport never loads it (`everturn.cli.lean_start`).
import aiohttp
from yarl import URL

from everturn.dapr.wire import Request, Response, joined
from everturn.errors import TerminalError, TransientError

# Longer than any step's own time limit, which is what really bounds a call.
_TIMEOUT_S = 300.0
# Of the transfer alone. Nothing waits for a 100 (Continue): the whole body is here.
_OF_THE_TRANSFER = frozenset({"content-length", "expect", "transfer-encoding"})
_NOT_IN_A_TARGET = re.compile(r"[^!-~]")
# RFC 9110 section 5.5.
_NOT_IN_A_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class HttpTransport:
    """A `Transport` to `base_url` over one pool of kept-alive connections.

    `headers` go with each request; `missing` is said if nobody is there. `socket`: path of a Unix socket that leads
    there. `timeout_s`: how long to wait for an answer to begin, and for its next bytes; None for as long as it takes.

    Nothing is sent twice: whether it may be is for its sender to know.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: dict[str, str] | None = None,
        missing: str | None = None,
        socket: str | None = None,
        timeout_s: float | None = _TIMEOUT_S,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._missing = missing or f"cannot reach {base_url}"
        self._socket = socket
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def send(self, request: Request) -> Response:
        if self._is_closed:
            raise TransientError(self._missing, kind="unreachable")
        self._session = self._session or self._connect()
        try:
            async with self._session.request(
                request.method,
                URL(self._base_url + _escaped(request.target), encoded=True),
                headers={n: _as_text(value) for n, value in request.headers.items() if n not in _OF_THE_TRANSFER},
                data=request.body or None,
                allow_redirects=False,
            ) as response:
                if response.status < 200:  # 101: nobody asked for another protocol
                    raise TransientError(self._missing, kind="unreachable")
                headers = {n: value for n, value in joined(response.raw_headers).items() if n not in _OF_THE_TRANSFER}
                return Response(response.status, headers, await response.read())
        except TimeoutError as error:
            raise TransientError(f"no answer from {self._socket or self._base_url} in time", kind="timeout") from error
        except aiohttp.ClientError as error:
            raise TransientError(self._missing, kind="unreachable") from error
        except ValueError:  # whose text may have the value
            wrong = _wrong_header({**(self._headers or {}), **request.headers})
            raise TerminalError(f"the request cannot be sent{wrong}") from None

    async def close(self) -> None:
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _connect(self) -> "aiohttp.ClientSession":
        from everturn.dapr.http_session import open_session  # noqa: PLC0415

        return open_session(self._headers, self._socket, self._timeout_s)


def _escaped(target: str) -> str:
    """`target` with what cannot be in one percent-encoded, as a space in the route of a subscription."""
    return _NOT_IN_A_TARGET.sub(lambda found: quote(found[0], errors="replace"), target)


def _wrong_header(headers: Mapping[str, str]) -> str:
    """Which of `headers` cannot be sent, and why, without its value: it may be a secret. Nothing if all can."""
    for name, value in headers.items():
        for part, text in (("name", name), ("value", value)):
            if _NOT_IN_A_HEADER.search(text):
                return f": the {part} of its header {name!r} has a control character in it"
    return ""


def _as_text(value: str) -> str:
    """`value`, a character for each byte, as aiohttp sends it, which is in UTF-8. Other bytes become UTF-8."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value
