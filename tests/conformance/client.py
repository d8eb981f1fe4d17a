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
        self,
        text: str,
        *,
        user: str | None = None,
        session: str | None = None,
        headers: dict[str, str] | None = None,
        overlap: str | None = None,
    ) -> httpx2.Response:
        body = {
            "user_id": user or self.user,
            "text": text,
            "metadata": {"session_id": session or self.session, "overlap": overlap},
        }
        return await self.http.post(f"{self.system.chat_url}/chat/", json=body, headers=headers or {})

    async def reply(self, text: str, *, user: str | None = None, session: str | None = None) -> dict[str, Any]:
        """The ChatReply to `text`."""
        response = await self.say(text, user=user, session=session)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def accept(
        self, text: str, *, session: str | None = None, key: str | None = None, overlap: str | None = None
    ) -> str:
        """Send `text` without waiting for its reply; the turn's id."""
        headers = ASYNC | ({"Idempotency-Key": key} if key else {})
        response = await self.say(text, session=session, headers=headers, overlap=overlap)
        assert response.status_code == 202, response.text
        return str(response.json()["turn_id"])

    async def turn(self, turn_id: str) -> dict[str, Any]:
        response = await self.http.get(f"{self.system.chat_url}/turns/{turn_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def served(self) -> None:
        """Wait until turns and conversations can be read: a sidecar may hold broken connections to its store."""

        async def is_served() -> bool:
            turn = await self.http.get(f"{self.system.chat_url}/turns/of-nobody")
            history = await self.http.get(f"{self.system.memory_url}/conversations/of-nobody")
            return (turn.status_code, history.status_code) == (404, 200)

        await self.until(is_served)

    async def steer(self, turn_id: str, how: str, **body: str) -> httpx2.Response:
        return await self.http.post(f"{self.system.chat_url}/turns/{turn_id}/{how}", json=body or None)

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

    async def said(self, text: str, session: str) -> None:
        """Wait until `text` is in a conversation; looks at the memory service alone."""

        async def is_there() -> bool:
            return text in await self.history(session)

        await self.until(is_there)

    async def answered(self, text: str, session: str, key: str) -> httpx2.Response:
        """The answer to `text`, sent again with its key while the service is not there (503) or not done (202)."""
        answers: list[httpx2.Response] = []

        async def is_answered() -> bool:
            answers.append(await self.say(text, session=session, headers={"Idempotency-Key": key}))
            return answers[-1].status_code not in (202, 503)

        await self.until(is_answered)
        return answers[-1]

    async def until(self, look: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again until `look` says yes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await look():  # noqa: ASYNC110 - a client has nothing else to wait for
                await asyncio.sleep(0)
