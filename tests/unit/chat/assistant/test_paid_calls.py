"""A run of an agent that breaks off anywhere and is done again: what was paid is not paid twice."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, GuardrailFunctionOutput, function_tool, input_guardrail
from agents.testing import ScriptedModel, assistant_message, function_call

from everturn.chat.assistant.agent import Assistant, RunStopped, agent_at
from everturn.chat.assistant.tools import tool
from everturn.chat.calls import Call, CallLog, Decision
from everturn.contracts.memory import default_memory
from everturn.errors import SettingError, TerminalError, TransientError
from tests.system.paid_assistant import book, keys, made, pay

LONG = [
    [function_call("send_mail", {"to": "ann"}, call_id="same"), function_call("send_mail", {"to": "bob"}, call_id="b")],
    [function_call("transfer_to_booker", {}, call_id="c")],
    [function_call("send_mail", {"to": "cy"}, call_id="same")],
    [assistant_message("all sent")],
]
# Model calls are the writes 1, 4 and 5; the handoff is no call of its own.
ANSWER_OF_WRITE = {1: 0, 4: 1, 5: 2}


# An agent that is a tool: its last answer ends its own run, not the turn's.
NESTED = [
    [function_call("ask_clerk", {"input": "mail ann"}, call_id="a")],
    [function_call("send_mail", {"to": "ann"}, call_id="a")],
    [assistant_message("sent")],
    [assistant_message("the clerk has sent it")],
]


class Kept:
    """What a store has of the calls of a run; one write breaks off, before or after it is done."""

    def __init__(self, broken: int, *, is_written: bool) -> None:
        self.calls: dict[int, Call] = {}
        self._broken = broken
        self._is_written = is_written

    async def write(self, number: int, call: Call) -> Call:
        is_broken, self._broken = self._broken == number, 0 if self._broken == number else self._broken
        if not is_broken or self._is_written:
            self.calls.setdefault(number, call)
        if is_broken:
            raise TransientError("the store is away", kind="unreachable")
        return self.calls[number]

    def log(self) -> CallLog:
        return CallLog("t", "m", [self.calls[number] for number in sorted(self.calls)], self.write)


@pytest.fixture(autouse=True)
def fresh() -> None:
    made.clear()
    keys.clear()


async def replied(
    model: ScriptedModel, log: CallLog, agent: Agent[Any] | None = None, max_model_calls: int = 11
) -> str:
    """The reply of an attempt, behind whose pause a person has approved all that it asks."""
    agent = agent or agent_at("tests.system.paid_assistant:agent")
    assistant = Assistant(model, agent=agent, max_model_calls=max_model_calls)
    pause = log.pause
    decisions = {one.call_id: Decision(decision="approve", at=pause.asked_at) for one in pause.asked} if pause else {}
    return await assistant.reply(default_memory("ann"), [], "hello", (), log, decisions)


async def broken_off_and_done_again(script: list[Any], repeated: int | None, kept: Kept) -> tuple[str, CallLog]:
    """A run that breaks off as `kept` has it, then the next attempt. The model repeats that answer of its script."""
    answers = sorted([*range(len(script)), *([] if repeated is None else [repeated])])
    model = ScriptedModel([script[answer] for answer in answers])
    with pytest.raises(TransientError, match="the store is away"):
        await replied(model, kept.log())
    log = kept.log()
    reply = await replied(model, log)
    assert len(model.calls) == len(answers)
    return reply, log


@pytest.mark.parametrize("is_written", [False, True], ids=["lost", "written"])
@pytest.mark.parametrize("broken", range(1, 7))
async def test_a_run_that_breaks_off_at_any_write_repeats_what_was_not_written_and_no_more(
    broken: int, *, is_written: bool
) -> None:
    repeated = None if is_written else ANSWER_OF_WRITE.get(broken)

    reply, log = await broken_off_and_done_again(LONG, repeated, Kept(broken, is_written=is_written))

    assert reply == "all sent"
    assert set(made) == {"mail ann", "mail bob", "mail cy"}
    # A tool whose answer was not written, and one that ran beside it, may run again, with the same key.
    assert sum(made.values()) <= (5 if broken in {2, 3, 6} else 3)
    assert len(set(keys)) == 3
    assert log.usage()["model_calls"] == 4
    assert log.usage()["tool_calls"] == 3


@pytest.mark.parametrize(("broken", "repeated", "mails"), [(1, 0, 1), (2, 1, 1), (3, None, 2), (4, 2, 1), (5, None, 1)])
async def test_the_calls_of_an_agent_that_is_a_tool_are_paid_once_too(
    broken: int, repeated: int | None, mails: int
) -> None:
    reply, log = await broken_off_and_done_again(NESTED, repeated, Kept(broken, is_written=False))

    assert reply == "the clerk has sent it"
    assert made == {"mail ann": mails}
    assert len(set(keys)) == 1
    assert log.usage()["model_calls"] == 4
    assert log.usage()["tool_calls"] == 2


async def test_an_agent_that_is_a_tool_stops_to_ask_and_goes_on_where_it_was() -> None:
    script = [
        [function_call("ask_clerk", {"input": "book"}, call_id="a")],
        [function_call("book", {"flight": "PK301"}, call_id="b")],
        [assistant_message("booked")],
        [assistant_message("the clerk has booked it")],
    ]
    clerk = Agent[Any](name="clerk", instructions="Book.", tools=[book])
    front = Agent[Any](name="front", instructions="Help.", tools=[clerk.as_tool("ask_clerk", "Ask the clerk.")])
    kept, model = Kept(0, is_written=True), ScriptedModel(script)

    with pytest.raises(RunStopped):
        await replied(model, kept.log(), front)
    reply = await replied(model, kept.log(), front)

    assert reply == "the clerk has booked it"
    assert made == {"book PK301": 1}
    assert len(model.calls) == len(script)


async def test_what_was_asked_before_a_person_decided_can_be_asked_again_after_it() -> None:
    ask = [function_call("ask_clerk", {"input": "mail ann"}, call_id="a")]
    mail = [function_call("send_mail", {"to": "ann"}, call_id="m")]
    sent = [assistant_message("sent")]
    stop = [function_call("book", {"flight": "PK301"}, call_id="b")]
    kept, model = Kept(0, is_written=True), ScriptedModel([ask, mail, sent, stop, ask, mail, sent, sent])

    with pytest.raises(RunStopped):
        await replied(model, kept.log())
    await replied(model, kept.log())

    assert len(model.calls) == 8
    assert [call.agent for call in kept.calls.values() if call.name == "send_mail"] == ["clerk", "clerk"]


async def test_of_a_tool_that_is_called_once_the_model_reads_that_a_crash_lost_its_answer() -> None:
    script = [[function_call("pay", {"amount": 5}, call_id="a")], [assistant_message("I do not know")]]
    kept = Kept(3, is_written=False)  # 1 the model's answer, 2 that the call was begun, 3 the tool's answer
    model = ScriptedModel(script)
    with pytest.raises(TransientError, match="the store is away"):
        await replied(model, kept.log())

    reply = await replied(model, kept.log())

    assert reply == "I do not know"
    assert made == {"pay 5": 1}
    assert "outcome unknown" in str(model.calls[-1].input)
    assert kept.calls[3].error == "outcome_unknown"


async def test_each_attempt_of_a_tool_has_the_same_key() -> None:
    model = ScriptedModel([[function_call("look_up", {"word": "yes"}, call_id="a")], [assistant_message("found")]])
    kept = Kept(0, is_written=True)

    await replied(model, kept.log())

    assert made == {"look yes": 2}
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert kept.calls[2].attempts == 2
    assert kept.calls[2].answer == "found yes"


async def test_a_tool_that_takes_too_long_is_an_error_for_the_model() -> None:
    model = ScriptedModel([[function_call("wait_for_ever", {}, call_id="a")], [assistant_message("sorry")]])
    kept = Kept(0, is_written=True)

    await replied(model, kept.log())

    assert made == {"wait": 1}
    assert (kept.calls[2].error, kept.calls[2].answer) == ("tool_failed", "error: wait_for_ever failed (TimeoutError)")


async def test_a_turn_that_needs_more_model_calls_than_it_may_make_fails_for_good() -> None:
    kept = Kept(0, is_written=True)
    with pytest.raises(TerminalError, match="more than 3 model calls"):
        await replied(ScriptedModel(LONG), kept.log(), max_model_calls=3)

    reply = await replied(ScriptedModel(LONG[3:]), kept.log(), max_model_calls=4)

    assert reply == "all sent"


async def test_a_guardrail_that_says_no_fails_the_turn_for_good() -> None:
    @input_guardrail
    def never(_context: Any, _agent: Any, _input: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    with pytest.raises(TerminalError, match="guardrail"):
        await replied(ScriptedModel(LONG[3:]), CallLog(), Agent(name="x", input_guardrails=[never]))


def test_an_agent_that_names_its_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the agent 'x' names its model 'gpt-9'"):
        Assistant(ScriptedModel([]), agent=Agent(name="x", model="gpt-9"))


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("tests.no_such_module:agent", "there is no module 'tests.no_such_module' in this folder"),
        ("tests.system.paid_assistant:nobody", "'tests.system.paid_assistant' has no 'nobody'"),
        ("tests.system.paid_assistant", "write it as module:agent"),
        ("tests.system.paid_assistant:made", "is a Counter, not an Agent"),
    ],
)
def test_a_place_without_an_agent_is_a_wrong_setting(place: str, fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        agent_at(place)


@pytest.mark.parametrize(
    "fault",
    [
        "import no_such_package",
        "raise TypeError",
        "x = 1\nif:",
        "import json\njson.loads('')",
        "import httpx2\nhttpx2.URL(1)",
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / "broken_assistant.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    line = fault.count("\n") + 1

    with pytest.raises(SettingError, match=rf"cannot be imported: \w+Error at .*broken_assistant\.py:{line}$"):
        agent_at("broken_assistant:agent")


async def test_an_agent_that_is_a_tool_does_not_hide_that_its_model_is_away() -> None:
    away = TransientError("the model is away", kind="unreachable")
    kept = Kept(0, is_written=True)

    with pytest.raises(TransientError, match="the model is away"):
        await replied(ScriptedModel([NESTED[0], away]), kept.log())
    reply = await replied(ScriptedModel(NESTED[1:]), kept.log())

    assert reply == "the clerk has sent it"


async def test_of_two_attempts_at_once_one_makes_a_call_that_is_made_once() -> None:
    script: list[Any] = [[function_call("pay", {"amount": 5}, call_id="a")], [assistant_message("done")]]
    kept = Kept(0, is_written=True)
    first, second = kept.log(), kept.log()  # both see no call
    agent = Agent[Any](name="payer", instructions="Pay.", tools=[pay])

    for log in (first, second):
        await replied(ScriptedModel(script), log, agent)

    assert made == {"pay 5": 1}


async def test_an_attempt_that_asks_otherwise_than_another_one_leaves_the_calls_to_it() -> None:
    script: list[Any] = [[function_call("pay", {"amount": 5}, call_id="a")], [assistant_message("done")]]
    kept = Kept(0, is_written=True)
    first, second = kept.log(), kept.log()  # each is told another time by its instructions
    await replied(ScriptedModel(script), first)

    with pytest.raises(TransientError, match="another attempt"):
        await replied(ScriptedModel(script), second)
    await replied(ScriptedModel(script[1:]), kept.log())

    assert made == {"pay 5": 1}


NO_JSON: list[Any] = []
NO_JSON.append(NO_JSON)


async def answered_once(function: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    """What a tool of that function answered, as it is kept, and as the model was asked with it; it is called once."""
    made.clear()
    found = function_tool(function, name_override="odd", failure_error_function=None)
    model = ScriptedModel([[function_call("odd", {}, call_id="a")], [assistant_message("done")]])
    kept = Kept(0, is_written=True)

    reply = await replied(model, kept.log(), Agent[Any](name="x", tools=[found]))

    assert (reply, made["odd"]) == ("done", 1)
    return kept.calls[2].answer, model.calls[1].input[-1]["output"]


@pytest.mark.parametrize("answer", [b"\xff", NO_JSON, {"\ud800": b"\xff"}], ids=["bytes", "cycle", "nested"])
async def test_a_tool_whose_answer_is_no_json_is_not_called_again(answer: Any) -> None:
    async def odd() -> Any:
        made["odd"] += 1
        return answer

    kept, read = await answered_once(odd)

    assert kept == read == "error: odd was called, but its answer cannot be written as JSON; do not call it again"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("a\ud800b\x00", "a\ufffdb\ufffd"), (["\ud800"], ["\ufffd"]), (float("nan"), None), ({1: {2}}, {"1": [2]})],
    ids=["text", "nested", "nan", "keys"],
)
async def test_the_model_reads_of_a_tool_what_is_kept(answer: Any, expected: Any) -> None:
    async def odd() -> Any:
        made["odd"] += 1
        return answer

    kept, read = await answered_once(odd)

    assert kept == expected
    assert read == str(expected)


@pytest.mark.parametrize("error", [OSError("secret"), asyncio.CancelledError(), TransientError("it is away")])
async def test_a_tool_of_the_sdk_that_raises_is_called_once_and_the_model_reads_that(error: BaseException) -> None:
    async def odd() -> Any:
        made["odd"] += 1
        raise error

    kept, _ = await answered_once(odd)

    assert kept in (
        "error: odd failed (OSError)",
        "error: odd failed (CancelledError)",
        "error: odd failed (it is away)",
    )


async def test_a_cancelled_turn_begins_no_further_attempt_of_a_tool() -> None:
    log = CallLog("t", "m")

    async def odd() -> str:
        """Fail while the turn is cancelled."""
        made["odd"] += 1
        log.cancel()
        raise OSError

    model = ScriptedModel([[function_call("odd", {}, call_id="a")]])

    with pytest.raises(TerminalError, match="cancelled"):
        await replied(model, log, Agent[Any](name="x", tools=[tool(retries=3)(odd)]))

    assert made["odd"] == 1


async def test_a_store_that_refuses_the_prompt_costs_no_answer() -> None:
    log, model = CallLog("t", "m"), ScriptedModel([[assistant_message("Hello.")]])

    async def refused(_digest: str, _value: Any) -> None:
        raise TransientError("the disk is full", kind="disk")

    log.keep_prompt = refused

    with pytest.raises(TransientError, match="the disk is full"):
        await replied(model, log)

    assert not model.calls
