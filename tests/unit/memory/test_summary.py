import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.workflow_state import WorkflowStatus
from prometheus_client import CollectorRegistry

from everturn.contracts.memory import UserMemory
from everturn.dapr.workflows import Workflows
from everturn.errors import TerminalError, TransientError
from everturn.memory.metrics import MemoryMetrics
from everturn.memory.store import Stores
from everturn.memory.summary import Refreshed, Refresher, Summaries, register_summary
from everturn.models.summarizer import SummaryTurn
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.testing.clock import ManualClock
from tests.unit.memory.arrivals import turn
from tests.unit.memory.conftest import StateTransport
from tests.unit.runtime.conftest import PATIENCE_S, ScriptedApp


class Scribe:
    """Summarises by writing down the messages behind the previous summary. `interrupt` runs while it writes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, list[str]]] = []
        self.error: Exception | None = None
        self.refused: set[str] = set()
        self.most_turns = 1_000
        self.interrupt: Callable[[], Awaitable[object]] | None = None

    async def summarise(self, name: str, previous: str, turns: Sequence[SummaryTurn]) -> str:
        messages = [one.text for one in turns]
        self.calls.append((name, previous, messages))
        if self.error is not None:
            raise self.error
        if self.refused.intersection(messages):
            raise TerminalError("the content filter withheld it", kind="content_filter")
        if len(turns) > self.most_turns:
            raise TerminalError("the model refused the request (400)", kind="http_400")
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            await interrupt()
        return "|".join([previous, *messages])


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


@pytest.fixture
def refresher(stores: Stores, scribe: Scribe) -> Refresher:
    return Refresher(stores, scribe.summarise, MemoryMetrics(CollectorRegistry()), timeout_s=60)


async def say(stores: Stores, session_id: str, *sequences: int) -> None:
    for sequence in sequences:
        name = f"{session_id}{sequence}"
        await stores.conversations.store(turn(sequence, turn_id=name, session_id=session_id, text=name))


async def summary(stores: Stores) -> str:
    return (await stores.users.memory("u")).user_summary


async def refreshed_to_the_end(refresher: Refresher, session_id: str) -> None:
    """As the workflow does, without its timers."""
    for _ in range(20):
        result = await refresher.refresh("u", session_id)
        if not result.retry and not result.more:
            return
    raise AssertionError("never done")


async def test_new_turns_are_brought_into_the_previous_summary(stores: Stores, refresher: Refresher) -> None:
    await say(stores, "a", 1, 2)
    await refresher.refresh("u", "a")
    await say(stores, "a", 3)

    result = await refresher.refresh("u", "a")

    assert result == Refreshed()
    assert await summary(stores) == "u is a new user.|a1|a2|a3"


async def test_a_fact_of_one_session_survives_turns_of_another(stores: Stores, refresher: Refresher) -> None:
    await say(stores, "a", 1)
    await refresher.refresh("u", "a")

    await say(stores, "b", *range(1, 21))
    await refreshed_to_the_end(refresher, "b")

    assert (await summary(stores)).split("|") == ["u is a new user.", "a1", *(f"b{n}" for n in range(1, 21))]


async def test_name_and_style_are_never_changed(stores: Stores, refresher: Refresher, scribe: Scribe) -> None:
    await stores.users.initialize("u", UserMemory(name="Ann", preferred_style="formal", user_summary="Before."))
    await say(stores, "a", 1)

    await refresher.refresh("u", "a")

    memory = await stores.users.memory("u")
    assert memory == UserMemory(name="Ann", preferred_style="formal", user_summary="Before.|a1")
    assert scribe.calls == [("Ann", "Before.", ["a1"])]


async def test_a_turn_that_is_in_the_summary_is_not_brought_in_again(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1)
    await refresher.refresh("u", "a")

    await refresher.refresh("u", "a")

    assert len(scribe.calls) == 1


async def test_a_late_turn_is_brought_in_too(stores: Stores, refresher: Refresher) -> None:
    await say(stores, "a", 2)
    await refresher.refresh("u", "a")
    await say(stores, "a", 1)

    await refresher.refresh("u", "a")

    assert await summary(stores) == "u is a new user.|a2|a1"


async def test_many_turns_are_brought_in_piece_by_piece(stores: Stores, refresher: Refresher, scribe: Scribe) -> None:
    await say(stores, "a", *range(1, 51))

    await refreshed_to_the_end(refresher, "a")

    assert len(scribe.calls) == 3
    assert (await summary(stores)).split("|")[1:] == [f"a{n}" for n in range(1, 51)]


async def test_a_summary_has_at_most_2_000_characters(stores: Stores, refresher: Refresher) -> None:
    await stores.conversations.store(turn(1, session_id="a", text="x" * 5_000))

    await refresher.refresh("u", "a")

    assert len(await summary(stores)) == 2_000


async def test_a_model_that_is_away_changes_nothing_and_says_when_to_come_back(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1)
    scribe.error = TransientError("busy", retry_after_s=30)

    result = await refresher.refresh("u", "a")

    assert result == Refreshed(retry=True, retry_after_s=30)
    assert await summary(stores) == "u is a new user."


async def test_a_model_that_never_answers_is_given_up(stores: Stores) -> None:
    async def never(_name: str, _previous: str, _turns: Sequence[SummaryTurn]) -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    await say(stores, "a", 1)

    result = await Refresher(stores, never, MemoryMetrics(CollectorRegistry()), timeout_s=0.001).refresh("u", "a")

    assert result.retry


async def test_an_unexpected_error_is_retried_and_its_text_is_not_logged(
    stores: Stores, refresher: Refresher, scribe: Scribe, caplog: pytest.LogCaptureFixture
) -> None:
    await say(stores, "a", 1)
    scribe.error = ValueError("canary")

    with caplog.at_level(logging.DEBUG):
        result = await refresher.refresh("u", "a")

    assert result.retry
    assert "canary" not in str([record.__dict__ for record in caplog.records])


async def test_a_turn_that_the_model_refuses_does_not_keep_the_others_out(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1, 2, 3)
    scribe.refused = {"a2"}

    await refreshed_to_the_end(refresher, "a")

    assert await summary(stores) == "u is a new user.|a1|a3"


async def test_turns_that_are_too_long_together_come_in_one_by_one(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1, 2, 3)
    scribe.most_turns = 1

    await refreshed_to_the_end(refresher, "a")

    assert await summary(stores) == "u is a new user.|a1|a2|a3"


@pytest.mark.parametrize("kind", ["http_400", "http_401"])
async def test_what_is_no_fault_of_one_turn_is_no_reason_to_leave_it_out(
    stores: Stores, refresher: Refresher, scribe: Scribe, kind: str
) -> None:
    await say(stores, "a", 1)
    scribe.error = TerminalError("the model endpoint refused the request", kind=kind)

    result = await refresher.refresh("u", "a")

    assert result.retry


async def test_an_initialize_meanwhile_wins_and_the_summary_goes_on_from_it(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await stores.users.initialize("u", UserMemory(name="Ann", preferred_style="formal", user_summary="Old."))
    await say(stores, "a", 1)
    initialized = UserMemory(name="Bo", preferred_style="brief", user_summary="New.")
    scribe.interrupt = lambda: stores.users.initialize("u", initialized)

    await refresher.refresh("u", "a")

    memory = await stores.users.memory("u")
    assert memory == UserMemory(name="Bo", preferred_style="brief", user_summary="New.|a1")


async def test_two_sessions_at_once_both_get_into_the_summary_once(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1)
    await say(stores, "b", 1)
    scribe.interrupt = lambda: refresher.refresh("u", "b")

    await refresher.refresh("u", "a")

    assert await summary(stores) == "u is a new user.|b1|a1"


async def test_the_same_session_twice_at_once_counts_once(stores: Stores, refresher: Refresher, scribe: Scribe) -> None:
    await say(stores, "a", 1, 2)
    scribe.interrupt = lambda: refresher.refresh("u", "a")

    await refresher.refresh("u", "a")

    assert await summary(stores) == "u is a new user.|a1|a2"


async def test_the_same_session_twice_at_once_counts_once_where_the_memory_is_put_back(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    before = await stores.users.memory("u")
    await say(stores, "a", 1)

    async def refresh_and_put_the_memory_back() -> None:
        await refresher.refresh("u", "a")
        await stores.users.initialize("u", before)

    scribe.interrupt = refresh_and_put_the_memory_back
    await refresher.refresh("u", "a")

    assert len(scribe.calls) == 2
    assert await summary(stores) == "u is a new user."


async def test_a_turn_that_comes_while_the_summary_is_made_is_said_to_wait(
    stores: Stores, refresher: Refresher, scribe: Scribe
) -> None:
    await say(stores, "a", 1)
    scribe.interrupt = lambda: say(stores, "a", 2)

    result = await refresher.refresh("u", "a")

    assert result.more
    assert await summary(stores) == "u is a new user.|a1"


async def test_no_note_stays_in_the_users_key(stores: Stores, refresher: Refresher) -> None:
    for session_id in "abc":
        await say(stores, session_id, 1)
        await refresher.refresh("u", session_id)

    user = await stores.users.read("u")
    assert user is not None
    assert user.value.applied == {}


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("cut", range(3))
async def test_a_crash_at_any_write_of_a_summary_counts_each_turn_once(
    transport: StateTransport, stores: Stores, refresher: Refresher, cut: int, cut_after: bool
) -> None:
    await say(stores, "a", 1, 2)
    transport.cut_at, transport.cut_after = len(transport.writes) + cut, cut_after

    await refresher.refresh("u", "a")
    await say(stores, "a", 3)
    await refreshed_to_the_end(refresher, "a")

    assert (await summary(stores)).split("|")[1:] == ["a1", "a2", "a3"]


async def test_a_store_that_is_away_is_not_taken_for_a_new_user(
    transport: StateTransport, stores: Stores, refresher: Refresher
) -> None:
    await stores.users.initialize("u", UserMemory(name="Ann", preferred_style="formal", user_summary="Known."))
    await say(stores, "a", 1)
    transport.is_away = True

    result = await refresher.refresh("u", "a")

    assert result.retry
    with pytest.raises(TransientError):
        await stores.users.read("u")


async def test_users_with_similar_ids_do_not_mix(stores: Stores) -> None:
    for user_id in ("a|b", "a%7Cb", "a||b", "\u00e9", "e\u0301", "a/b "):
        await stores.users.initialize(user_id, UserMemory(name=user_id, preferred_style="x", user_summary="y"))

    names = [(await stores.users.memory(user_id)).name for user_id in ("a|b", "a%7Cb", "a||b", "\u00e9", "e\u0301")]
    assert names == ["a|b", "a%7Cb", "a||b", "\u00e9", "e\u0301"]


async def test_a_summary_that_an_operator_has_ended_is_started_by_a_later_turn(
    tmp_path: Path, stores: Stores, refresher: Refresher
) -> None:
    clock = ManualClock()
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions())
    sidecar = runtime.add_app("agent-memory-service", ScriptedApp())
    summaries = Summaries(Workflows(sidecar.workflows), stores.conversations, quiet_s=30, enough=8, now=clock.elapsed)
    worker = WorkflowRuntime()
    register_summary(worker, refresher, summaries)
    await sidecar.start(worker)
    await say(stores, "a", 1)
    await summaries.ensure_next("a")
    (instance_id,) = [one async for one in sidecar.workflows.iter_workflow_instance_ids()]
    await sidecar.workflows.terminate_workflow(instance_id)
    await sidecar.workflows.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    clock.advance(30)
    await say(stores, "a", 2)
    await summaries.ensure_next("a")

    state = await sidecar.workflows.get_workflow_state(instance_id)
    assert state is not None
    assert state.runtime_status is not WorkflowStatus.TERMINATED
    await sidecar.stop()
    await runtime.stop(1)
