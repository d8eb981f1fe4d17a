"""Streams of a real `everturn up`: words that come while the model speaks, and a kill in the middle of them."""

from tests.e2e.conftest import Client, Machine
from tests.system.sse import Told, told_by, told_in

STREAM = {"Accept": "text/event-stream"}
MESSAGE = {"user_id": "junaid", "text": "My name is Junaid and I live in Karachi", "metadata": {"session_id": "s1"}}


async def test_a_kill_in_the_middle_of_an_answer_loses_no_word_that_was_seen(machine: Machine, client: Client) -> None:
    slow, seen = await machine.up("--slow-demo"), list[Told]()
    async with client.http.stream("POST", f"{machine.chat_url}/chat/", json=MESSAGE, headers=STREAM) as response:
        async for event in told_by(response):
            seen.append(event)
            if sum(event.type == "TEXT_MESSAGE_CONTENT" for event in seen) == 2:
                break
        await slow.kill()

    await machine.up()
    path = f"{machine.chat_url}{response.headers['location']}/events"
    async with client.http.stream("GET", path, headers={"Last-Event-ID": seen[-1].id}) as response:
        rest = [event async for event in told_by(response)]

    whole = told_in((await client.http.get(path)).text)
    assert whole == [*seen, *rest]
    assert [event.type for event in rest[:3]] == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    said = "".join(event.data.get("delta", "") for event in rest)
    assert rest[-1].data["result"]["reply"] == said
    assert "Junaid" in said
