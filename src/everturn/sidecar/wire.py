"""A request to a sidecar's HTTP API and its response, without a socket: the seam that both runtimes share.

Paths are as on the wire: percent-encoded, with their query.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is path and query (`/v1.0/state/statestore/a%2Fb?x=1`); header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` has lower-case names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Transport(Protocol):
    """Carries a request to a sidecar (or from a runtime to its app) and brings the response back."""

    async def send(self, request: Request) -> Response:
        """Send `request`; any status is a response.

        Raises TransientError (kind `unreachable` or `timeout`) where no whole response came back.
        """
        ...

    async def close(self) -> None: ...
