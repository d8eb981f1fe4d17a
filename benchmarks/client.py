"""A client that sends one message after the other over one connection, for a number of turns."""

import asyncio
import http.client
import json
from urllib.parse import urlsplit

import httpx2

_TEXT = "The meeting about the harvest is on Tuesday at ten, in the room with the blue door. " * 3
MESSAGE = _TEXT[:200]


def talk(url: str, session: str, turns: int, text: str = MESSAGE) -> None:
    """So many turns of one session."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    body = json.dumps({"user_id": session, "text": text, "metadata": {"session_id": session}})
    for _ in range(turns):
        connection.request("POST", "/chat/", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content.decode()}")
    connection.close()


async def accept_all(url: str, turns: int, *, at_once: int = 64) -> None:
    """Have so many turns accepted, each of a session of its own, without waiting for their replies."""
    left = iter(range(turns))

    async def lane(client: httpx2.AsyncClient) -> None:
        for number in left:
            body = {"user_id": f"u{number}", "text": MESSAGE, "metadata": {"session_id": f"s{number}"}}
            answer = await client.post("/chat/", json=body, headers={"Prefer": "respond-async"})
            if answer.status_code != 202:
                raise RuntimeError(f"{answer.status_code}: {answer.text}")

    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(lane(client) for _ in range(at_once)))
