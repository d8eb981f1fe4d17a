"""Streams of turns on two replicas: each continues after any event, at either of them, through a kill."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from everturn.testing.model_answers import Held, spoken
from tests.conformance.client import PATIENCE_S
from tests.conformance.replicas import OTHER, Pair
from tests.system.sse import Told, told_by, told_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Listener:
    """Reads the stream of a turn at one replica, one event at a time."""

    def __init__(self, pair: Pair, replica: str, turn_id: str) -> None:
        self.read: list[Told] = []
        self._pair = pair
        self._url = f"{pair[replica].system.chat_url}/turns/{turn_id}/events"
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Listener":
        stream = self._pair["chat"].http.stream("GET", self._url)
        self._events = told_by(await self._open.enter_async_context(stream))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def until(self, kind: str, text: str = "") -> Told:
        """Read on to an event of that type whose words, if it has any, end with `text`."""
        async with asyncio.timeout(PATIENCE_S):
            async for event in self._events:
                self.read.append(event)
                if event.type == kind and event.data.get("delta", "").endswith(text):
                    return event
        raise AssertionError(f"the stream ended without {kind} {text!r}")


async def behind(
    pair: Pair, replica: str, turn_id: str, event_id: str, *, count: int | None = None
) -> list[list[Told]]:
    """What a stream has behind an event, by `Last-Event-ID` and by `?after=`: all, or the first `count` events."""
    url = f"{pair[replica].system.chat_url}/turns/{turn_id}/events"
    both: tuple[dict[str, Any], ...] = ({"headers": {"Last-Event-ID": event_id}}, {"params": {"after": event_id}})
    told = []
    for how in both:
        async with asyncio.timeout(PATIENCE_S), pair[replica].http.stream("GET", url, **how) as response:
            assert response.status_code == 200
            events = told_by(response)
            told.append(
                [event async for event in events] if count is None else [await anext(events) for _ in range(count)]
            )
    return told


@pytest.mark.parametrize("is_async", [False, True], ids=["stream", "respond_async"])
async def test_a_stream_goes_on_behind_each_event_at_either_replica_through_a_kill(pair: Pair, is_async: bool) -> None:
    flight, release = f"flight of {pair.name}", asyncio.Event()
    booked, arguments = f"booked {flight}", json.dumps({"flight": flight})
    calls = [("find", arguments), ("book", arguments)]
    pair.endpoint.script_for(f"book for {pair.name}", spoken("Let me ", "look. ", calls=calls))
    pair.endpoint.script_for(booked, spoken("It is ", "booked", asyncio.Event()))
    pair.endpoint.script_for(booked, Held(release, spoken("It is ", "booked, ", "for you.")))
    turn_id = await accepted(pair, f"book for {pair.name}", is_async=is_async)

    async with Listener(pair, "chat", turn_id) as first, Listener(pair, "chat-2", turn_id) as second:
        listeners = {"chat": first, "chat-2": second}
        for listener in listeners.values():
            asked = await listener.until("RUN_FINISHED")
        await approve(pair, turn_id, asked)
        for listener in listeners.values():
            await listener.until("TEXT_MESSAGE_CONTENT", "booked")
        killed = pair.asked_by(booked)[0]
        seen, survivor = list(listeners[killed].read), OTHER[killed]
        pair.system.kill(killed)
        await pair.system.survive(survivor)
        for count, event in enumerate(seen, start=1):
            rest = await behind(pair, survivor, turn_id, event.id, count=len(seen) - count)
            assert rest == [seen[count:]] * 2
        release.set()
        while (await listeners[survivor].until("RUN_FINISHED")).data["outcome"]["type"] != "success":
            pass
    whole = listeners[survivor].read
    await pair.system.start()

    assert whole[: len(seen)] == seen
    taken_back = ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    assert [event.type for event in whole[len(seen) : len(seen) + 3]] == taken_back
    assert whole[-1].data["result"]["reply"] == "It is booked, for you."
    for replica in OTHER:
        assert await read_whole(pair, replica, turn_id) == whole
        for count, event in enumerate(whole, start=1):
            assert await behind(pair, replica, turn_id, event.id) == [whole[count:]] * 2


async def approve(pair: Pair, turn_id: str, asked: Told) -> None:
    """Approve the one call that a run has stopped to ask about."""
    (interrupt,) = asked.data["outcome"]["interrupts"]
    answer = await pair["chat-2"].steer(turn_id, f"approvals/{interrupt['toolCallId']}", decision="approve")
    assert answer.status_code == 200, answer.text


async def accepted(pair: Pair, text: str, *, is_async: bool) -> str:
    """Send `text`, to be streamed; the turn's id."""
    client = pair["chat"]
    if is_async:
        return await client.accept(text)
    body = {"user_id": client.user, "text": text, "metadata": {"session_id": client.session}}
    url = f"{client.system.chat_url}/chat/"
    async with client.http.stream("POST", url, json=body, headers={"Accept": "text/event-stream"}) as response:
        return str((await anext(told_by(response))).data["metadata"]["turn_id"])


async def read_whole(pair: Pair, replica: str, turn_id: str) -> list[Told]:
    response = await pair[replica].http.get(f"{pair[replica].system.chat_url}/turns/{turn_id}/events")
    assert response.status_code == 200
    return told_in(response.text)
