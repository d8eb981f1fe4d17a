"""A client that never gives up: what got no answer it sends again, by the same key. Its journal outlives crashes.

What it does is written as if nothing could happen (`shapes.py`). After a crash it goes through that again from the
start; what has its answer in the journal is not sent again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from everturn.dapr.wire import Request, Transport
from tests.chaos.journal import Exchange, Journal, names_in
from tests.chaos.simulated_loop import pass_time

ENDED = ("completed", "failed", "cancelled")
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 120.0


class NothingComes(Exception):
    """What must come in the end has not come in hours."""


class Client:
    """Sends requests to one life of the machine; hears nothing once it is dead.

    `patience_s`: seconds after which it believes that what it looks for does not come.
    """

    patience_s = 3 * 3600.0

    def __init__(
        self, journal: Journal, life: int, chat: Transport, memory: Transport, is_dead: Callable[[], bool]
    ) -> None:
        self.journal = journal
        self.life = life
        self._chat = chat
        self._memory = memory
        self._is_dead = is_dead

    async def send(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, prefer: str | None = None
    ) -> Exchange:
        """One request, once; its answer, unless the machine dies."""
        exchange = Exchange(self.life, self.journal.tick(), method, path, body, key)
        self.journal.exchanges.append(exchange)
        headers = {"content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        if prefer is not None:
            headers["prefer"] = prefer
        service = self._memory if path.startswith(("/memories", "/conversations")) else self._chat
        response = await service.send(
            Request(method, path, headers, b"" if body is None else json.dumps(body).encode())
        )
        if self._is_dead():
            await asyncio.get_running_loop().create_future()
        exchange.answered = self.journal.tick()
        exchange.status = response.status
        exchange.answer = json.loads(response.body) if response.body else None
        return exchange

    async def do(self, what: str, method: str, path: str, body: Any = None, **how: str) -> Exchange:
        """The request that `what` names, until it has an answer other than 500 or 503; the answer of old, if any."""
        if what in self.journal.done:
            return self.journal.done[what]
        for pause in Pauses(self):
            exchange = await self.send(method, path, body, **how)
            if exchange.status not in (500, 503):
                break
            await pause()
        self.journal.done[what] = exchange
        return exchange

    async def look(self, turn_id: str) -> dict[str, Any]:
        """The turn as it stands."""
        for pause in Pauses(self):
            exchange = await self.send("GET", f"/turns/{turn_id}")
            if exchange.status not in (500, 503):
                return dict(exchange.answer)
            await pause()
        raise AssertionError

    async def ended(self, turn_id: str) -> dict[str, Any]:
        """The turn once it has ended."""
        for pause in Pauses(self):
            turn = await self.look(turn_id)
            if turn.get("status") in (*ENDED, 404):
                return turn
            await pause()
        raise AssertionError

    async def history(self, session: str) -> list[str]:
        exchange = await self.send("GET", f"/conversations/{quote(session)}")
        return [entry["content"] for entry in exchange.answer["history"]] if exchange.status == 200 else []

    async def summary(self, user: str) -> str:
        exchange = await self.send("GET", f"/memories/{quote(user)}")
        return str(exchange.answer["user_summary"]) if exchange.status == 200 else ""

    async def rest(self, seconds: float) -> None:
        """What it does between two looks."""
        await pass_time(seconds)


class Pauses:
    """`for pause in Pauses(client): …; await pause()`: pauses that grow. Raises NothingComes after hours."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._next_s = _FIRST_PAUSE_S
        self._waited_s = 0.0

    def __iter__(self) -> "Pauses":
        return self

    def __next__(self) -> Callable[[], Awaitable[None]]:
        if self._waited_s > self._client.patience_s:
            raise NothingComes
        return self._pause

    async def _pause(self) -> None:
        seconds, self._next_s = self._next_s, min(self._next_s * 2, _LONGEST_PAUSE_S)
        self._waited_s += seconds
        await self._client.rest(seconds)


async def look_at_everything(client: Client) -> None:
    """What a client can see when all has come to rest: every turn, every history, every summary."""
    journal = client.journal
    turns = [await client.ended(turn_id) for turn_id in journal.turn_ids()]
    completed = {turn["turn_id"] for turn in turns if turn.get("status") == "completed"}
    for session, user in journal.sessions():
        wanted = {name for name, turn_id in journal.names(session) if turn_id in completed}
        for pause in Pauses(client):
            there = {content.split()[0] for content in await client.history(session)}
            if wanted <= there and wanted <= set(names_in(await client.summary(user))):
                break
            await pause()
