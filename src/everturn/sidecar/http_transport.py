"""Requests over a real socket, to a sidecar or from a runtime to its app."""

import httpx2

from everturn.errors import TransientError
from everturn.sidecar.wire import Request, Response

# Longer than any step's own time limit, which is what really bounds a call.
_TIMEOUT_S = 300.0
# What is handed on is the decoded body, whole.
_OF_THE_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class HttpTransport:
    """A `Transport` to `base_url` over one pool of kept-alive connections."""

    def __init__(self, base_url: str, *, headers: dict[str, str] | None = None) -> None:
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,  # a sidecar is never behind a proxy
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )

    async def send(self, request: Request) -> Response:
        try:
            response = await self._client.request(
                request.method, request.target, headers=dict(request.headers), content=request.body
            )
        except httpx2.TimeoutException as error:
            raise TransientError(f"no answer from {self._client.base_url} in time", kind="timeout") from error
        except httpx2.TransportError as error:
            raise TransientError(f"cannot reach {self._client.base_url}", kind="unreachable") from error
        headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_TRANSFER}
        return Response(response.status_code, headers, response.content)

    async def close(self) -> None:
        await self._client.aclose()
