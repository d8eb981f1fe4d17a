"""The way of events to the memory service, on which they arrive twice, late, in another order, or seem not to."""

import asyncio
from random import Random

from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TransientError
from tests.chaos.simulated_loop import pass_time

_EVENTS_PATH = "/conversations"
# Seconds that a late event takes at most: long enough for others to overtake it.
_LATE_S = 5.0


class UnreliableChannel:
    """A `Transport` that leads the share `astray` of the events astray. `counts` says how many and how."""

    def __init__(self, inner: Transport, astray: float, random: Random, counts: dict[str, int]) -> None:
        self._inner = inner
        self._astray = astray
        self._random = random
        self._counts = counts

    async def send(self, request: Request) -> Response:
        if request.method != "POST" or request.target != _EVENTS_PATH or self._random.random() >= self._astray:
            return await self._inner.send(request)
        how = self._random.choice(("doubled", "late", "unanswered", "refused"))
        self._counts[how] = self._counts.get(how, 0) + 1
        match how:
            case "doubled":
                first, _ = await asyncio.gather(self._inner.send(request), self._inner.send(request))
                return first
            case "late":
                await pass_time(self._random.random() * _LATE_S)
                return await self._inner.send(request)
            case "unanswered":
                await self._inner.send(request)
                raise TransientError("the answer got lost", kind="timeout")
            case _:
                raise TransientError("nobody there", kind="unreachable")

    async def close(self) -> None: ...
