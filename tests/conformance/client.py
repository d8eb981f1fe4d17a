"""A client of both services, as anybody could write one: HTTP only."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic
from urllib.parse import quote

import httpx2
from typing_extensions import TypeVar

from tests.conformance.systems import Addresses, System

# With a default, so that a client of a whole system is simply a `Client`.
S = TypeVar("S", bound=Addresses, default=System)

# Far longer than anything here takes: a limit for what hangs, not a measure.
PATIENCE_S = 90.0
ASYNC = {"Prefer": "respond-async"}


@dataclass(frozen=True, slots=True)
class Client(Generic[S]):
    """Talks to `system`. `name` is of this test alone: users and sessions begin with it."""

    http: httpx2.AsyncClient
    system: S
    name: str

    @property
    def user(self) -> str:
        return f"user of {self.name}"

    @property
    def session(self) -> str:
        return f"session of {self.name}"

    async def say(
        self, text: str, *, user: str | None = None, session: str | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        body = {
            "user_id": user or self.user,
            "text": text,
            "metadata": {"session_id": session or self.session},
        }
        return await self.http.post(f"{self.system.chat_url}/chat/", json=body, headers=headers or {})

    async def reply(self, text: str, *, user: str | None = None, session: str | None = None) -> dict[str, Any]:
        """The ChatReply to `text`."""
        response = await self.say(text, user=user, session=session)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def accept(self, text: str, *, session: str | None = None, key: str | None = None) -> str:
        """Send `text` without waiting for its reply; the turn's id."""
        headers = ASYNC | ({"Idempotency-Key": key} if key else {})
        response = await self.say(text, session=session, headers=headers)
        assert response.status_code == 202, response.text
        return str(response.json()["turn_id"])

    async def turn(self, turn_id: str) -> dict[str, Any]:
        response = await self.http.get(f"{self.system.chat_url}/turns/{turn_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def steer(self, turn_id: str, how: str) -> httpx2.Response:
        return await self.http.post(f"{self.system.chat_url}/turns/{turn_id}/{how}")

    async def ended(self, turn_id: str) -> dict[str, Any]:
        """The turn once it has ended."""

        async def has_ended() -> bool:
            return (await self.turn(turn_id))["status"] in ("completed", "failed", "cancelled")

        await self.until(has_ended)
        return await self.turn(turn_id)

    async def history(self, session: str | None = None) -> list[str]:
        """What was said in a conversation, in order."""
        path = quote(session or self.session, safe="")
        response = await self.http.get(f"{self.system.memory_url}/conversations/{path}")
        assert response.status_code == 200, response.text
        return [entry["content"] for entry in response.json()["history"]]

    async def history_of(self, count: int, session: str | None = None) -> list[str]:
        """The same, once it has `count` entries."""

        async def is_there() -> bool:
            return len(await self.history(session)) >= count

        await self.until(is_there)
        return await self.history(session)

    async def until(self, look: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again until `look` says yes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await look():  # noqa: ASYNC110 - a client has nothing else to wait for
                await asyncio.sleep(0)
