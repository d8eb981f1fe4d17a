"""More than can be served, and a clock that is set back: in one loop, with the system whole."""

import asyncio
import gc
import threading
from pathlib import Path

import httpx2

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running

_CROWD = 10_000
_SERVED = 300
# Messages of a wave; how many of them may be answered at once, and how many replies may be generated at once.
_WAVE = 1_000
_HELD = 50
_CALLED = 20
_THE_SAME = ("activities", "workflows", "timers", "threads")


async def test_of_10_000_turns_at_once_those_beyond_capacity_are_refused_and_the_rest_end(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, max_requests=_SERVED) as system:
        responses = await asyncio.gather(*(_say(system, number) for number in range(_CROWD)))

        answered = [response for response in responses if response.status_code == 200]
        refused = [response for response in responses if response.status_code == 503]
        assert len(answered) + len(refused) == _CROWD
        assert len(answered) >= _SERVED
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
        assert len(system.questions()) == len(answered), "a refused message was accepted"
        for response in answered[:: len(answered) // 20]:
            session = response.json()["metadata"]["session_id"]
            assert await system.history_of(2, session) == [f"message of {session}", "hello"]


async def _say(system: System, number: int) -> httpx2.Response:
    session = f"s{number}"
    return await system.say(f"message of {session}", user=f"user-{number}", session=session)


async def test_what_is_held_does_not_grow_with_the_load_and_what_was_accepted_ends(
    tmp_path: Path, clock: ManualClock
) -> None:
    release = asyncio.Event()
    async with (
        ModelEndpoint(otherwise=Held(release, completion("hello"))) as endpoint,
        running(tmp_path, endpoint, clock, max_requests=_HELD, max_model_calls=_CALLED) as system,
    ):
        accepted = await _refused_but(_HELD, system, first=0)
        await endpoint.asked(_CALLED)
        before = _held(system)

        for wave in range(1, 4):
            assert await _refused_but(0, system, first=wave * _WAVE) == []
        after = _held(system)

        assert len(endpoint.requests) == _CALLED
        assert before["activities"] == before["workflows"] == _HELD
        assert [after[what] for what in _THE_SAME] == [before[what] for what in _THE_SAME]
        # Who waits looks again now and then, by a task of its own.
        assert after["tasks"] <= before["tasks"] + 2 * _HELD
        assert after["objects"] - before["objects"] < _WAVE, "something is kept of each refused request"
        release.set()
        responses = await asyncio.gather(*accepted)
        assert [response.status_code for response in responses] == [200] * _HELD
        for response in responses:
            session = response.json()["metadata"]["session_id"]
            assert await system.history_of(2, session) == [f"message of {session}", "hello"]

        async def all_is_done() -> bool:
            return system.runtime.engine.running_activities == 0

        await system.until(all_is_done, moving=False)


async def _refused_but(count: int, system: System, first: int) -> "list[asyncio.Task[httpx2.Response]]":
    """Send a wave of messages, and return those that wait for a reply once all but `count` are refused."""
    sent = [asyncio.create_task(_say(system, first + number)) for number in range(_WAVE)]

    async def is_refused() -> bool:
        return sum(not task.done() for task in sent) == count

    await system.until(is_refused, moving=False)
    assert all(task.result().status_code == 503 for task in sent if task.done())
    return [task for task in sent if not task.done()]


def _held(system: System) -> dict[str, int]:
    """How much of each thing there is in memory for the turns that are under way."""
    gc.collect()
    engine = system.runtime.engine
    return {
        "activities": engine.running_activities,
        "workflows": engine.resident_instances,
        "timers": engine.armed_timers,
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "objects": sum(str(type(each).__module__).startswith("everturn.") for each in gc.get_objects()),
    }


async def test_a_refused_message_may_be_sent_again_with_its_key(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, max_requests=1) as system:
        both = await asyncio.gather(*(system.say("Hi", Idempotency_Key="k", session=name) for name in ("s", "s")))
        refused = [response for response in both if response.status_code == 503]

        again = await system.say("Hi", Idempotency_Key="k")

        assert len(refused) == 1
        assert again.status_code == 200
        assert await system.history_of(2) == ["Hi", "hello"]


async def test_turns_that_nobody_waits_for_are_refused_beyond_what_the_process_may_hold(
    tmp_path: Path, clock: ManualClock
) -> None:
    release = asyncio.Event()
    async with (
        ModelEndpoint(otherwise=Held(release, completion("hello"))) as endpoint,
        running(tmp_path, endpoint, clock, max_inflight_steps=2, max_model_calls=1) as system,
    ):
        running_turn = await system.accept("Hi", session="a", Idempotency_Key="a")
        await endpoint.asked(1)
        waiting_turn = await system.accept("Hi", session="b", Idempotency_Key="b")

        async def both_wait_for_the_model() -> bool:
            metrics = (await system.chat.get("/metrics")).text
            fetched = 'everturn_step_attempts_total{outcome="completed",step="fetch_context"} 2.0' in metrics
            return fetched and "everturn_step_attempts_under_way 2.0" in metrics

        await system.until(both_wait_for_the_model)
        refused = [await system.say("Hi", session="c", Prefer="respond-async", **key) for key in _KEY_OR_NONE]
        repeated = [await system.accept("Hi", session=name, Idempotency_Key=name) for name in ("a", "b")]
        release.set()
        for turn_id in (running_turn, waiting_turn):
            await system.ended(turn_id)
        await system.until(lambda: _is_idle(system))
        again = await system.say("Hi", session="c", Idempotency_Key="c")

        assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(503, "2")] * 2
        assert repeated == [running_turn, waiting_turn]
        assert again.status_code == 200
        assert await system.history_of(2, "c") == ["Hi", "hello"]


_KEY_OR_NONE: list[dict[str, str]] = [{}, {"Idempotency_Key": "c"}]


async def _is_idle(system: System) -> bool:
    return "everturn_step_attempts_under_way 0.0" in (await system.chat.get("/metrics")).text


async def test_a_clock_that_is_set_back_loses_no_retry_and_no_order(system: System) -> None:
    system.endpoint.script(status(429, retry_after="20"), completion("after all"))
    first = await system.accept("Hi")
    await system.endpoint.asked(1)
    system.clock.jump(-7200)
    second = await system.accept("And?")

    turns = [await system.ended(turn_id) for turn_id in (first, second)]

    assert [turn["reply"]["reply"] for turn in turns] == ["after all", "hello"]
    assert await system.history_of(4) == ["Hi", "after all", "And?", "hello"]


async def test_a_clock_that_is_set_back_over_a_restart_loses_no_turn(tmp_path: Path, endpoint: ModelEndpoint) -> None:
    endpoint.script(status(429, retry_after="20"))
    before, after = ManualClock(2_000_000_000.0), ManualClock(1_999_000_000.0)
    async with running(tmp_path, endpoint, before) as system:
        turn_id = await system.accept("Hi")
        await endpoint.asked(1)

    async with running(tmp_path, endpoint, after) as system:
        turn = await system.ended(turn_id)

        assert turn["status"] == "completed"
        assert await system.history_of(2) == ["Hi", "hello"]
