"""Facts: written once, read back from every release's shape, over the real state store."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message, function_call

from everturn.chat.assistant.agent import Assistant
from everturn.chat.calls import Call, CallLog
from everturn.chat.facts import (
    Accepted,
    Cancelled,
    Failed,
    KeptSteps,
    Outcome,
    Prompt,
    Reply,
    RunAsked,
    TurnRun,
    accepted_key,
    asked_key,
    prompt_key,
    run_of_instance,
)
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.streamed_words import close_words
from everturn.contracts.chat import TurnStatus
from everturn.contracts.memory import default_memory
from everturn.dapr.client import DaprClient, Save, Versioned
from everturn.dapr.wire import Transport
from everturn.errors import ConflictError, TerminalError, TransientError
from tests.system.paid_assistant import made, pay

AT = "2026-01-01T12:00:00.000Z"
RUN = TurnRun("t", 0, Accepted(user_id="ann", session_id="s", text="hi", at=AT))
REPLY = Reply(text="hello", model="m", at=AT)
STEP = {"name": "fetch_context", "status": "completed", "attempts": 2, "started_at": AT, "finished_at": AT}
RECORD = {
    "turn_id": "t",
    "user_id": "ann",
    "session_id": "s",
    "sequence": 3,
    "text": "hi",
    "accepted_at": AT,
}


async def test_the_first_verdict_counts_whoever_asks(dapr: DaprClient) -> None:
    one, other = Journal(dapr, 30, facts_of, close_words), Journal(dapr, 30, facts_of, close_words)

    verdicts = await asyncio.gather(one.write_verdict(RUN, REPLY), other.write_verdict(RUN, Cancelled(at=AT)))

    assert verdicts[0] == verdicts[1] == await Journal(dapr, 30, facts_of, close_words).verdict(RUN)


async def test_an_unknown_turn_is_none_and_its_facts_do_not_pass_for_one(dapr: DaprClient) -> None:
    journal = Journal(dapr, 30, facts_of, close_words)
    await journal.write(accepted_key("t"), RUN.accepted)

    assert await journal.find("nobody") is None
    assert await journal.find("t:accepted") is None
    with pytest.raises(TerminalError) as raised:
        await journal.get("nobody")
    assert raised.value.kind == "not_found"


async def test_the_latest_run_is_found_without_the_outcomes_of_those_before(dapr: DaprClient) -> None:
    journal = Journal(dapr, 30, facts_of, close_words)
    await journal.write(accepted_key("t"), RUN.accepted)
    await journal.write(RUN.key("verdict"), Failed(step="s", attempts=1, kind="k", message="m", at=AT))
    await journal.write(RUN.key("outcome"), Outcome(status=TurnStatus.FAILED, at=AT, sequence=1))
    for number in (1, 2):
        await journal.write(asked_key("t", number), RunAsked(at=AT))
    await dapr.transact([], [RUN.key("outcome")])

    facts = await Journal(dapr, 30, facts_of, close_words).get("t")

    assert (facts.run.number, facts.outcome, facts.verdict) == (2, None, None)
    assert run_of_instance(facts.run.instance_id) == ("t", 2)
    assert run_of_instance("t") == ("t", 0)


class RefusesForAMoment(DaprClient):
    """Refuses writes for a tenth of a second though nobody was first, as Redis does when it is in trouble."""

    refuses_until = 0.0

    async def save_state(self, *saves: Save) -> None:
        now = asyncio.get_running_loop().time()
        self.refuses_until = self.refuses_until or now + 0.1
        if now < self.refuses_until:
            raise ConflictError("possible etag mismatch")
        await super().save_state(*saves)


async def test_a_write_that_the_store_refuses_for_a_moment_is_made_again(transport: Transport) -> None:
    written = await Journal(RefusesForAMoment(transport), 30, facts_of, close_words).write_verdict(RUN, REPLY)

    assert written == REPLY == await Journal(DaprClient(transport), 30, facts_of, close_words).verdict(RUN)


class LosesAnswers(DaprClient):
    """Hears nothing of a write that was made, so it is made again, as a sidecar does whose store was cut off."""

    async def save_state(self, *saves: Save) -> None:
        await super().save_state(*saves)
        await super().save_state(*saves)


async def test_who_wrote_a_fact_knows_it_though_the_answer_was_lost(transport: Transport) -> None:
    journal = Journal(LosesAnswers(transport), 30, facts_of, close_words)

    assert await journal.write_verdict(RUN, REPLY) is REPLY


async def test_a_call_that_is_made_once_is_made_though_the_answer_to_a_write_was_lost(transport: Transport) -> None:
    journal = Journal(LosesAnswers(transport), 30, facts_of, close_words)
    counted: list[str] = []
    script = [[function_call("pay", {"amount": 5}, call_id="a")], [assistant_message("paid")]]
    assistant = Assistant(ScriptedModel(script), agent=Agent[Any](name="payer", instructions="Pay.", tools=[pay]))
    made.clear()

    async def write(number: int, call: Call) -> Call:
        return await journal.write(RUN.key(f"call:{number}"), call)

    log = CallLog("t", "m", write=write, paid=lambda call: counted.append(call.kind))
    await assistant.reply(default_memory("ann"), [], "hello", (), log)

    assert made == {"pay 5": 1}
    assert counted == ["model", "tool", "tool"]  # the tool's call was begun, then made


class AtDifferentMoments(DaprClient):
    """Reads many keys as Redis does: what is `late` was written after it had been asked for."""

    late: set[str]

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        found = await super().get_states(keys)
        late, self.late = self.late, set()
        return {key: value for key, value in found.items() if key not in late}


@pytest.mark.parametrize("late", ["verdict", "steps"])
async def test_what_was_written_before_something_that_is_there_is_found(transport: Transport, late: str) -> None:
    journal = Journal(DaprClient(transport), 30, facts_of, close_words)
    await journal.write(accepted_key("t"), RUN.accepted)
    await journal.write(RUN.key("verdict"), Failed(step="s", attempts=1, kind="k", message="m", at=AT))
    await journal.write(RUN.key("outcome"), Outcome(status=TurnStatus.FAILED, at=AT, sequence=1))
    await journal.write(RUN.key("steps"), KeptSteps(steps=[STEP]))
    if late == "steps":
        await journal.write(asked_key("t", 1), RunAsked(at=AT))
    client = AtDifferentMoments(transport)
    client.late = {RUN.key(late)}

    facts = await Journal(client, 30, facts_of, close_words).get("t")

    steps = facts.steps if late == "verdict" else facts.past_steps
    assert [step.name for step in steps or ()] == ["fetch_context"]
    assert isinstance(facts.verdict, Failed) is (late == "verdict")


async def test_fields_of_a_newer_release_outlive_the_end_of_a_turn(dapr: DaprClient) -> None:
    stored = {**RUN.accepted.stored(), "version": 2, "mood": "merry"}
    await dapr.save_state(Save(accepted_key("t"), stored))
    journal = Journal(dapr, 30, facts_of, close_words)

    await journal.close((await journal.get("t")).run)

    item = await dapr.get_state(accepted_key("t"))
    assert item is not None
    assert item.value == stored


async def test_what_cannot_be_read_is_an_error_and_not_an_unknown_turn(dapr: DaprClient) -> None:
    await dapr.save_state(Save(accepted_key("t"), {"no": "fact"}))

    with pytest.raises(TransientError) as raised:
        await Journal(dapr, 30, facts_of, close_words).find("t")

    assert raised.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("record", "verdict", "status"),
    [
        ({}, None, None),
        ({"reply": {"text": "hello", "model": "m", "at": AT}}, "reply", None),
        ({"cancel_requested": True}, "cancellation", None),
        (
            {"reply": {"text": "hello", "model": "m", "at": AT}, "outcome": {"status": "completed", "at": AT}},
            "reply",
            "completed",
        ),
        (
            {"outcome": {"status": "failed", "at": AT, "step": "s", "error": {"kind": "k", "message": "m"}}},
            "failure",
            "failed",
        ),
        ({"outcome": {"status": "cancelled", "at": AT}, "cancel_requested": True}, "cancellation", "cancelled"),
    ],
    ids=["running", "with its reply", "being cancelled", "completed", "failed", "cancelled"],
)
async def test_a_record_of_the_release_before_is_read_as_facts(
    dapr: DaprClient, record: dict[str, Any], verdict: str | None, status: str | None
) -> None:
    await dapr.save_state(Save("turn:t", {**RECORD, **record, "past_steps": [STEP], "run": 2}))

    facts = await Journal(dapr, 30, facts_of, close_words).get("t")

    assert (facts.run.number, facts.run.instance_id, facts.run.accepted) == (1, "t.2", RUN.accepted)
    assert (facts.verdict and facts.verdict.__struct_config__.tag) == verdict
    assert (facts.outcome and (facts.outcome.status, facts.outcome.sequence)) == (status and (status, 3))
    assert [step.attempts for step in facts.past_steps] == [2]


async def test_a_turn_of_the_release_before_gets_its_new_facts_in_the_journal(dapr: DaprClient) -> None:
    await dapr.save_state(Save("turn:t", RECORD))
    journal = Journal(dapr, 30, facts_of, close_words)

    await journal.write_verdict(RUN, REPLY)
    await journal.write(RUN.key("outcome"), Outcome(status=TurnStatus.COMPLETED, at=AT, sequence=3))
    await journal.close(RUN)

    facts = await Journal(dapr, 30, facts_of, close_words).get("t")
    assert (facts.verdict, facts.outcome and facts.outcome.status) == (REPLY, TurnStatus.COMPLETED)
    assert await dapr.get_state(accepted_key("t")) is None


async def test_what_many_turns_are_asked_with_is_written_once_a_day(dapr: DaprClient) -> None:
    key = prompt_key("abc")
    old = Prompt(value="old", at="2020-01-01T12:00:00.000Z")
    journal, other = (Journal(dapr, 30, facts_of, close_words) for _ in range(2))
    await dapr.save_state(Save(key, old.stored()))
    await journal.read_all({key: Prompt})

    await journal.keep_prompt("abc", "new")
    written = await dapr.get_state(key)
    await dapr.transact([], [key])
    await journal.keep_prompt("abc", "new")
    gone = await dapr.get_state(key)
    await other.keep_prompt("abc", "new")

    assert written is not None
    assert written.value["value"] == "new"
    assert gone is None
    assert await dapr.get_state(key) is not None
