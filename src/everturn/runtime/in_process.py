"""The HTTP front, called in the process."""

from everturn.runtime.http_front import HttpFront
from everturn.sidecar.wire import Request, Response


class InProcessTransport:
    """A `Transport` to `front`. Who has this object needs no token."""

    def __init__(self, front: HttpFront) -> None:
        self._front = front

    async def send(self, request: Request) -> Response:
        return await self._front.handle_trusted(request)

    async def close(self) -> None:
        """Nothing to close: the front belongs to its runtime."""
