"""A turn as a journal of facts: what a crash or a store's trouble leaves, and who finishes it. Nobody looks or repeats
a request unless a test says so.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from everturn.chat.accept import claim_key, fingerprint
from everturn.contracts.chat import Message
from everturn.contracts.events import CHAT_APP_ID
from everturn.dapr.wire import Request, Response
from everturn.dapr.workflows import has_ended
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import PATIENCE_S, Gate, System, running
from tests.system.test_abandoned import fail, operate, terminate
from tests.system.test_order import held

STATE = "/v1.0/state/statestore"
REFUSED = Response(500, {}, b'{"errorCode": "ERR_STATE_SAVE", "message": "possible etag mismatch"}')


class Wire(Gate):
    """The chat service's sidecar; `meddle` may answer a request itself. All that was sent is in `sent`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Request] = []
        self.meddle: Callable[[Request], Response | None] = lambda _: None

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        return self.meddle(request) or await super().send(request)


async def over(system: System, instance_id: str) -> None:
    """Return when the workflow has ended; the client has its answer a moment before."""
    await system.runtime.engine.client(CHAT_APP_ID).wait_for_workflow_completion(instance_id)


def writes(request: Request, key: str) -> bool:
    return f'{key}","value"'.encode() in request.body


@asynccontextmanager
async def wired(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, **given: Any
) -> AsyncIterator[tuple[System, Wire]]:
    wire = Wire()
    async with running(tmp_path, endpoint, clock, gate=wire, **given) as system:
        yield system, wire


async def ended_without_a_look(system: System, session: str = "s", turns: int = 1) -> list[str]:
    """The history of a session once it has so many turns: no request to the chat service is made."""
    return await system.history_of(2 * turns, session)


async def test_a_warm_turn_sends_fifteen_requests_at_most(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        await over(system, (await system.say("first")).json()["turn_id"])
        await system.history_of(2)
        wire.sent.clear()

        turn_id = (await system.say("second")).json()["turn_id"]
        await over(system, turn_id)

        told = Counter(f"{request.method} {request.target.split('?')[0]}" for request in wire.sent)
        assert len(wire.sent) <= 15, told  # beside the start of the workflow
        history = await system.runtime.engine.client(CHAT_APP_ID).get_workflow_history(turn_id)
        names = [event.name for event in history if event.event_type.value == "taskScheduled"]
        assert names == ["fetch_context", "generate_response", "save_conversation"]


async def test_a_turn_whose_place_was_never_written_enters_its_session_and_runs(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        first: list[Request] = []

        def lose_the_first(request: Request) -> Response | None:
            if writes(request, "session:s") and not first:
                first.append(request)
                return Response(503)
            return None

        wire.meddle = lose_the_first
        lost = await system.say("Hi", Prefer="respond-async")

        assert lost.status_code == 503
        assert await ended_without_a_look(system) == ["Hi", "hello"]


async def test_of_two_first_messages_at_once_one_waits_and_both_are_answered_in_order(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        _, release = await held(system, "first")
        stale = ["once"]  # the other's turn is not seen yet: a workflow is started for this one as well
        wire.meddle = lambda request: Response(204) if reads_session(request) and _pop(stale) else None

        second = await system.accept("second")
        waiting = await system.turn(second)
        release.set()

        assert (waiting["status"], waiting["steps"]) == ("queued", [])
        assert await system.runtime.engine.client(CHAT_APP_ID).get_workflow_state(second) is not None
        assert await ended_without_a_look(system, turns=2) == ["first", "re: first", "second", "hello"]


def reads_session(request: Request) -> bool:
    return request.method == "GET" and request.target.endswith("session:s")


def _pop(items: list[str]) -> bool:
    return bool(items and items.pop())


async def test_a_new_session_of_two_users_is_one_users(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        await system.say("Hi", user="ann")
        stale = ["once"]
        wire.meddle = lambda request: Response(204) if reads_session(request) and _pop(stale) else None

        refused = await system.say("mine?", user="bob", Idempotency_Key="k")
        wire.meddle = lambda _: None
        elsewhere = await system.say("mine!", user="bob", session="t", Idempotency_Key="k")

        assert refused.status_code == 403
        assert elsewhere.status_code == 200, "a refused request has used its key up"
        assert (await operate(system, "GET", f"{STATE[6:]}/session:s"))["user_id"] == "ann"
        assert await system.history() == ["Hi", "hello"]


async def test_a_store_that_refuses_writes_for_a_while_costs_no_second_reply(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        refusals = list(range(12))
        wire.meddle = lambda request: (
            REFUSED if writes(request, ":verdict") and refusals and refusals.pop() >= 0 else None
        )

        turn = await system.ended(await system.accept("Hi"))

        assert (turn["status"], turn["reply"]["reply"]) == ("completed", "hello")
        assert len(system.questions()) == 1


async def test_a_head_without_facts_holds_nobody(system: System) -> None:
    await system.say("first")
    head = {"turn_id": "gone", "sequence": 2, "run": 0}
    session = {"user_id": "ann", "next_sequence": 3, "queue": [head]}
    await operate(system, "POST", "state/statestore", [{"key": "session:s", "value": session}])

    await system.accept("second")

    assert await ended_without_a_look(system, turns=2) == ["first", "hello", "second", "hello"]


async def test_a_deferred_event_whose_facts_are_gone_ends(system: System) -> None:
    given = {"turn_id": "gone", "run": 0, "sequence": 1}
    workflows = system.runtime.engine.client(CHAT_APP_ID)
    await workflows.schedule_new_workflow("deliver_event", input=given, instance_id="gone.event")

    await over(system, "gone.event")


async def test_a_deferred_event_of_a_turn_without_a_verdict_ends_and_sends_nothing(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    """As the release before left one for a failed turn that is run again: it names the turn and no run."""
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        turn_id, release = await held(system)
        workflows = system.runtime.engine.client(CHAT_APP_ID)
        await workflows.schedule_new_workflow("deliver_event", input={"turn_id": turn_id}, instance_id="t.event")

        async with asyncio.timeout(PATIENCE_S):
            await over(system, "t.event")
        sent = [request.target for request in wire.sent if "/publish/" in request.target]
        release.set()

        assert sent == []


async def test_a_slow_repeat_of_a_request_leaves_the_running_turn_as_it_is(system: System) -> None:
    first, release = await held(system)
    claim = {
        "turn_id": first,
        "user_id": "ann",
        "session_id": "s",
        "text": "first",
        "accepted_at": "2026-01-01T12:00:00.000Z",
    }
    message = Message.model_validate({"user_id": "ann", "text": "first", "metadata": {"session_id": "s"}})
    value = {**claim, "fingerprint": fingerprint("ann", message)}
    await operate(system, "POST", "state/statestore", [{"key": claim_key("ann", "k"), "value": value}])

    again = [await system.accept("first", Idempotency_Key="k") for _ in range(2)]
    release.set()

    assert again == [first, first]
    assert (await system.say("first", Idempotency_Key="k")).json()["reply"] == "re: first"
    assert len(system.questions()) == 1


@pytest.mark.parametrize("lost", ["session:s", ":run:1"], ids=["place", "fact"])
async def test_a_rerun_that_got_no_answer_ends_though_nobody_looks(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, lost: str
) -> None:
    endpoint.script(status(400))
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        turn_id = (await system.say("Hi")).json()["turn_id"]
        await over(system, turn_id)
        wire.meddle = lambda request: Response(503) if writes(request, lost) else None

        answer = await system.steer(turn_id, "rerun")
        wire.meddle = lambda _: None
        history = await ended_without_a_look(system)

        assert (answer.status_code, history) == (503, ["Hi", "hello"])
        assert (await system.turn(turn_id))["reply"]["reply"] == "hello"


async def test_a_rerun_that_did_not_begin_leaves_the_turn_failed(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    endpoint.script(status(400))
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        turn_id = (await system.say("Hi")).json()["turn_id"]
        await over(system, turn_id)
        looks = iter([None])  # the first read shows how the turn ended, the second is for its place
        wire.meddle = lambda request: next(looks, Response(503)) if request.target.endswith("session:s") else None

        answer = await system.steer(turn_id, "rerun")
        wire.meddle = lambda _: None

        assert (answer.status_code, (await system.turn(turn_id))["status"]) == (503, "failed")


async def test_a_turn_that_ends_while_it_is_looked_at_is_not_shown_as_queued(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        turn_id, release = await held(system)
        wire.wanted = lambda request: request.method == "GET" and request.target.endswith("session:s")
        looking = asyncio.create_task(system.turn(turn_id))
        await wire.reached.wait()

        release.set()
        await over(system, turn_id)
        wire.release.set()

        assert (await looking)["status"] == "completed"


async def test_a_failed_workflow_sends_a_dead_letter(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        first, release = await held(system)
        await fail(system, first)

        await system.turn(first)

        letters = [request for request in wire.sent if request.target.endswith("conversations-dead-letters")]
        assert [b'"kind":"workflow_failed"' in letter.body for letter in letters] == [True]
        release.set()


async def test_a_rerun_is_refused_when_there_is_too_much_to_do(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    endpoint.script(status(400))
    async with running(tmp_path, endpoint, clock, max_inflight_steps=1) as system:
        failed = (await system.say("Hi")).json()["turn_id"]
        await over(system, failed)
        _, release = await held(system)

        refused = await system.steer(failed, "rerun")
        release.set()

        assert refused.status_code == 503


async def test_a_model_that_is_away_is_asked_again_until_the_time_is_over(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, generate_give_up_s=120) as system:
        endpoint.script(*[status(503)] * 50)
        turn_id = await system.accept("Hi")
        waiting: list[str] = []

        async def says_when() -> bool:
            turn = await system.turn(turn_id)
            waiting.extend([turn["next_attempt_at"]] if turn.get("next_attempt_at") else [])
            return bool(waiting)

        await system.until(says_when, moving=False)
        turn = await system.ended(turn_id)

        # 1, 2, 4, 8, 16, 30, 30 are 91 s of delays; one more would be more than 120.
        assert (turn["status"], turn["error"]["kind"]) == ("failed", "http_503")
        assert turn["steps"][1]["attempts"] == 8
        assert "next_attempt_at" not in turn


async def test_a_model_is_told_what_could_not_be_reached(system: System) -> None:
    system.faults.set_away("memory", away=True)

    await system.ended(await system.accept("What is my name?"))

    instructions = system.questions()[0][0]["content"]
    assert '"unavailable": ["memory", "history"]' in instructions


async def test_a_terminated_turn_does_not_start_again_when_the_end_of_the_turn_before_it_is_repeated(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        first, release = await held(system, "first")
        answer_second = asyncio.Event()
        endpoint.script(Held(answer_second, completion("again")))
        second = await system.accept("second")
        closing = ["once"]  # the first turn leaves its queue, starts the second, and cannot do the rest

        def refuse(request: Request) -> Response | None:
            is_closing = writes(request, f"{first}:accepted")
            return Response(503) if is_closing and _pop(closing) else None

        wire.meddle = refuse
        release.set()
        await endpoint.asked(2)
        await terminate(system, second)

        async def is_over() -> bool:
            state = await system.runtime.engine.client(CHAT_APP_ID).get_workflow_state(first)
            return state is not None and has_ended(state)

        await system.until(is_over)
        shown = await system.turn(second)
        answer_second.set()

        assert not closing
        assert shown["status"] == "cancelled"


async def test_the_context_of_a_turn_is_kept_for_as_long_as_the_turn_and_no_longer(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        turn_id = (await system.say("Hi")).json()["turn_id"]

        await over(system, turn_id)

        times = {
            save["key"].rpartition(":")[2]: save["metadata"]["ttlInSeconds"]
            for request in wire.sent
            if request.method == "POST" and request.target == STATE
            for save in json.loads(request.body)
            if save["key"].startswith(f"turn:{turn_id}:")
        }
        assert times["context"] == times["verdict"]
        assert (await operate(system, "GET", f"{STATE[6:]}/turn:{turn_id}:0:context"))["recent"] == []


async def test_a_turn_that_was_open_for_longer_than_its_context_is_kept_fetches_it_again(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock) as system:
        endpoint.script(status(503))
        turn_id = await system.accept("Hi")
        await endpoint.asked(1)
        await operate(system, "DELETE", f"{STATE[6:]}/turn:{turn_id}:0:context")

    async with running(tmp_path, endpoint, clock) as system:
        turn = await system.ended(turn_id)

    assert turn["reply"]["reply"] == "hello"
