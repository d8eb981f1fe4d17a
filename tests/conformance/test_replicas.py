"""Two replicas of the chat service: each may accept, run, show, steer and finish any turn."""

import asyncio
import json

import pytest

from everturn.testing.model_answers import Held, completion, tool_calls
from tests.conformance.client import Client
from tests.conformance.fleet import Door, address
from tests.conformance.replicas import OTHER, Pair

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("killed", OTHER)
async def test_turns_of_a_replica_that_is_killed_are_finished_by_the_other(pair: Pair, killed: str) -> None:
    release = asyncio.Event()
    turns = await pair.turns_on_both(release, accepted_by=killed)
    ran_there = [text for text in turns if pair.asked_by(text) == [killed]]

    pair.system.kill(killed)
    release.set()
    await pair.system.survive(OTHER[killed])
    other = pair[OTHER[killed]]
    ended = {text: await other.ended(turn_id) for text, turn_id in turns.items()}

    assert {turn["status"] for turn in ended.values()} == {"completed"}
    assert {text: pair.asked_by(text)[-1] for text in turns} == dict.fromkeys(turns, OTHER[killed])
    assert [pair.asked_by(text) for text in ran_there] == [[killed, OTHER[killed]] for _ in ran_there]
    for text, turn_id in turns.items():
        assert await other.history_of(2, session=text) == [text, "given"]
        again = await other.say(text, session=text, headers={"Idempotency-Key": text})
        assert (again.status_code, again.json()["turn_id"]) == (200, turn_id)


async def test_a_reply_that_a_killed_replica_has_saved_is_not_asked_for_again(pair: Pair) -> None:
    release = asyncio.Event()
    turns = await pair.turns_on_both(release, accepted_by="chat")
    text, turn_id = next((text, turn_id) for text, turn_id in turns.items() if pair.asked_by(text) == ["chat"])

    pair.system.links["chat"].hold()  # the reply can be saved, and the workflow does not hear of it
    release.set()
    await pair["chat"].until(lambda: has_saved_its_reply(pair, turn_id))
    pair.system.kill("chat")
    await pair.system.survive("chat-2")
    turn = await pair["chat-2"].ended(turn_id)
    await pair.system.links["chat"].restore()

    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "given")
    assert pair.asked_by(text) == ["chat"]
    assert await pair["chat-2"].history_of(2, session=text) == [text, "given"]


async def has_saved_its_reply(pair: Pair, turn_id: str) -> bool:
    """Whether the turn has its reply; a client does not hear of it before the turn has ended."""
    state = f"{address(pair.system.sidecars['chat-2'].http)}/v1.0/state/statestore/turn:{turn_id}:0:verdict"
    return (await pair["chat-2"].http.get(state)).status_code == 200


async def test_a_turn_that_waits_for_a_person_goes_on_when_its_replica_is_gone(pair: Pair) -> None:
    text, flight = f"book for {pair.name}", f"flight of {pair.name}"
    pair.endpoint.script_for(text, tool_calls(("book", json.dumps({"flight": flight}))))
    pair.endpoint.script_for(f"booked {flight}", completion("It is booked."))
    turn_id = await pair["chat"].accept(text)
    await pair["chat"].until(lambda: waits(pair["chat"], turn_id))

    pair.system.kill("chat")
    await pair.system.survive("chat-2")
    other = pair["chat-2"]
    waiting = await other.turn(turn_id)
    (asked,) = waiting["approvals"]
    decided = await other.steer(turn_id, f"approvals/{asked['call_id']}", decision="approve")
    turn = await other.ended(turn_id)

    assert (asked["tool"], asked["arguments"]) == ("book", {"flight": flight})
    assert decided.status_code == 200, decided.text
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "It is booked.")
    assert [call["name"] for call in turn["calls"]] == ["scripted", "book", "scripted"]
    assert len(pair.asked_by(text)) == 1
    assert pair.asked_by(f"booked {flight}") == ["chat-2"]


async def waits(client: Client[Door], turn_id: str) -> bool:
    return bool((await client.turn(turn_id))["status"] == "waiting")


async def test_messages_of_one_session_are_answered_in_the_order_of_their_acceptance(pair: Pair) -> None:
    texts = [f"{which} of {pair.name}" for which in ("first", "second", "third", "fourth", "fifth", "sixth")]
    release = asyncio.Event()
    pair.endpoint.script_for(texts[0], Held(release, completion(f"reply to {texts[0]}")))
    for text in texts[1:]:
        pair.endpoint.script_for(text, completion(f"reply to {text}"))

    turn_ids = [await pair[replica].accept(text) for text, replica in zip(texts, ["chat", "chat-2"] * 3, strict=True)]
    release.set()
    turns = [await pair["chat"].ended(turn_id) for turn_id in turn_ids]

    assert [turn["sequence"] for turn in turns] == [1, 2, 3, 4, 5, 6]
    said = [line for text in texts for line in (text, f"reply to {text}")]
    assert await pair["chat-2"].history_of(12) == said
    for number, text in enumerate(texts):
        (asked,) = pair.endpoint.requests_about(text)
        assert [message["content"] for message in asked.body["messages"][1:]] == said[: 2 * number + 1]


async def test_a_key_that_comes_to_both_at_once_is_one_turn(pair: Pair) -> None:
    text = f"message of {pair.name}"
    key = {"Idempotency-Key": "k"}

    answers = await asyncio.gather(*(pair[replica].say(text, headers=key) for replica in [*OTHER] * 4))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(pair.endpoint.requests_about(text)) == 1
    assert await pair["chat"].history_of(2) == [text, "hello"]
    assert await asyncio.gather(*(pair[replica].history() for replica in OTHER)) == [[text, "hello"]] * 2


@pytest.mark.parametrize("accepting", OTHER)
async def test_a_turn_is_shown_and_cancelled_by_the_replica_that_did_not_accept_it(pair: Pair, accepting: str) -> None:
    release = asyncio.Event()
    turns = await pair.turns_on_both(release, accepted_by=accepting)
    other = pair[OTHER[accepting]]

    shown = [await other.turn(turn_id) for turn_id in turns.values()]
    cancelled = [await other.steer(turn_id, "cancel") for turn_id in turns.values()]
    release.set()
    seen = [await pair[accepting].turn(turn_id) for turn_id in turns.values()]

    assert {turn["status"] for turn in shown} == {"running"}
    assert {(answer.status_code, answer.json()["status"]) for answer in cancelled} == {(200, "cancelled")}
    assert {turn["status"] for turn in seen} == {"cancelled"}
    for text in turns:
        assert (await pair[accepting].reply("the next one", session=text))["reply"] == "hello"
        assert await other.history_of(2, session=text) == ["the next one", "hello"]


@pytest.mark.parametrize("accepting", OTHER)
async def test_a_turn_is_paused_by_the_replica_that_did_not_accept_it_and_resumed_by_both(
    pair: Pair, accepting: str
) -> None:
    release = asyncio.Event()
    turns = await pair.turns_on_both(release, accepted_by=accepting)
    other = pair[OTHER[accepting]]

    paused = [await other.steer(turn_id, "pause") for turn_id in turns.values()]
    shown = [await pair[accepting].turn(turn_id) for turn_id in turns.values()]
    at_once = (pair[replica].steer(turn_id, "resume") for turn_id in turns.values() for replica in OTHER)
    resumed = await asyncio.gather(*at_once)
    # Only now: a turn that ends between the two resumes is 409 to the second.
    release.set()
    ended = [await pair[accepting].ended(turn_id) for turn_id in turns.values()]

    assert {(answer.status_code, answer.json()["status"]) for answer in paused} == {(200, "paused")}
    assert {turn["status"] for turn in shown} == {"paused"}
    assert {answer.status_code for answer in resumed} == {200}
    assert {(turn["status"], turn["reply"]["reply"]) for turn in ended} == {("completed", "given")}


async def test_who_waits_at_one_replica_gets_the_reply_that_the_other_made(pair: Pair) -> None:
    release = asyncio.Event()
    turns = await pair.turns_on_both(release, accepted_by="chat")

    waiting = [
        asyncio.create_task(pair[replica].say(text, session=text, headers={"Idempotency-Key": text}))
        for text in turns
        for replica in OTHER
    ]
    release.set()
    answers = await asyncio.gather(*waiting)

    assert [answer.json()["turn_id"] for answer in answers] == [id_ for id_ in turns.values() for _ in OTHER]
    assert {json.loads(answer.text)["reply"] for answer in answers} == {"given"}


async def operate(pair: Pair, how: str, *, turn_id: str, until: str) -> None:
    """Do `how` to a workflow through Dapr's API, as an operator does, and wait for the status `until`."""
    workflows = f"{address(pair.system.sidecars['chat'].http)}/v1.0/workflows/dapr"
    http = pair["chat"].http
    response = await http.post(f"{workflows}/{how}", json={"no": "turn"})
    assert response.status_code == 202, response.text

    async def is_so() -> bool:
        # On Redis a read during a write is an error, without a status (docs/reference/differences.md).
        return bool((await http.get(f"{workflows}/{turn_id}")).json().get("runtimeStatus") == until)

    await pair["chat"].until(is_so)


@pytest.mark.parametrize(("workflow", "status", "code"), [("terminated", "cancelled", 409), ("failed", "failed", 502)])
async def test_a_turn_whose_workflow_ends_without_it_is_ended_by_who_looks(
    pair: Pair, workflow: str, status: str, code: int
) -> None:
    release = asyncio.Event()
    text, key = f"message of {pair.name}", {"Idempotency-Key": "k"}
    pair.endpoint.script_for(text, Held(release, completion("never given")))
    turn_id = await pair["chat"].accept(text, key="k")
    await pair.endpoint.asked(1, about=text)

    await operate(pair, f"{turn_id}/terminate", turn_id=turn_id, until="TERMINATED")
    if workflow == "failed":
        # Started again in its place, with an input that is none.
        await operate(pair, f"chat_workflow/start?instanceID={turn_id}", turn_id=turn_id, until="FAILED")
    next_reply = await pair["chat-2"].reply("the next one")
    again = await pair["chat"].say(text, headers=key)
    seen = await asyncio.gather(*(pair[replica].turn(turn_id) for replica in OTHER))
    release.set()

    assert next_reply["reply"] == "hello"
    assert (again.status_code, again.json()["turn_id"]) == (code, turn_id)
    assert {turn["status"] for turn in seen} == {status}
    assert await pair["chat"].history_of(2) == ["the next one", "hello"]
