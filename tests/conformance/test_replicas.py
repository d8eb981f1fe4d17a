"""Two replicas of the chat service: each may accept, run, show, steer and finish any turn.

A replica has a model key of its own, so that a test sees which of them asked the model, and reaches the gRPC of its
sidecar over a link that a test can hold.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.layout import SidecarPorts, free_ports

from everturn.testing.fault_proxy import FaultProxy
from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.fleet import Door, Fleet, address, make_fleet, sidecar_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = {"chat": "chat-2", "chat-2": "chat"}


@dataclass(frozen=True, slots=True)
class Replicated:
    """A system with two replicas, and the link from each of them to the gRPC of its sidecar."""

    fleet: Fleet
    links: Mapping[str, FaultProxy]
    sidecars: Mapping[str, SidecarPorts]

    async def start(self) -> None:
        """Start what does not run. In a thread, since the links are in the loop."""
        await asyncio.to_thread(self.fleet.start)

    def kill(self, replica: str) -> None:
        """`kill -9` of the replica and of its sidecar."""
        self.fleet.kill(replica)
        self.fleet.kill(f"{replica}-sidecar")

    async def survive(self, replica: str) -> None:
        """See to it that the replica can work. Where the killed one had the same sidecar, that one is started again."""
        await asyncio.to_thread(self.fleet.restart, f"{replica}-sidecar")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client of each replica, both with the same user and session."""

    doors: Mapping[str, Client[Door]]
    system: Replicated
    endpoint: ModelEndpoint
    name: str

    def __getitem__(self, replica: str) -> Client[Door]:
        return self.doors[replica]

    def asked_by(self, text: str) -> list[str]:
        """Which replicas asked the model about `text`, in order."""
        asked = self.endpoint.requests_about(text)
        return [request.headers["authorization"].removeprefix("Bearer key-of-") for request in asked]

    async def turns_on_both(self, release: asyncio.Event, *, accepted_by: str) -> dict[str, str]:
        """Ids of turns by their text, all held in the model until `release`; each replica runs one of them at least.

        The runtime chooses who runs a turn, so turns of sessions of their own are sent until it has chosen both.
        """
        turns: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            while {self.asked_by(text)[0] for text in turns} != set(self.doors):
                text = f"message {len(turns)} of {self.name}."
                self.endpoint.script_for(text, Held(release, completion("given")), completion("given"))
                turns[text] = await self[accepted_by].accept(text, session=text, key=text)
                await self.endpoint.asked(1, about=text)
        return turns


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["embedded", "dapr"])
async def system(
    request: pytest.FixtureRequest, endpoint: ModelEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicated]:
    settings = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
    ports = free_ports(chat_replicas=len(OTHER))
    sidecars = {replica: sidecar_ports(request.param, ports, replica) for replica in OTHER}
    async with AsyncExitStack() as stack:
        links = {replica: await stack.enter_async_context(FaultProxy(sidecars[replica].grpc)) for replica in OTHER}
        own_settings = {
            replica: {"EVERTURN_MODEL_API_KEY": f"key-of-{replica}", "DAPR_GRPC_PORT": str(link.port)}
            for replica, link in links.items()
        }
        folder = tmp_path_factory.mktemp(request.param)
        made = Replicated(make_fleet(request.param, folder, ports, settings, own_settings), links, sidecars)
        stack.push_async_callback(made.fleet.stop)
        await made.start()
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def pair(system: Replicated, endpoint: ModelEndpoint, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Clients of two replicas that run, and that run again when the test is over."""
    await system.start()
    name = request.node.name
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        yield Pair(
            {replica: Client(http, Door(system.fleet, replica), name) for replica in OTHER}, system, endpoint, name
        )
    await system.start()


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
    """Whether the turn's record has a reply; a client is not told before the turn has ended."""
    state = f"{address(pair.system.sidecars['chat-2'].http)}/v1.0/state/statestore/turn:{turn_id}"
    record = (await pair["chat-2"].http.get(state)).json()
    return "reply" in record


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
        # On Redis a read in the midst of a write is an error, without a status (docs/reference/differences.md).
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
