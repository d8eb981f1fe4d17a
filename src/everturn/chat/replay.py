"""A recorded turn, run again offline against the assistant of today: each call is answered from the recording.

A model call is found by what it is asked; if only its instructions or its tools differ, that is a departure, and the
run goes on with the recorded answer, so that the others are seen as well. What the recording does not have ends it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import zip_longest
from typing import Any, Literal

import msgspec

from everturn.chat.assistant.agent import Assistant, RunStopped
from everturn.chat.calls import (
    BEGUN,
    Call,
    CallLog,
    Decision,
    Question,
    Taken,
    item_digests_of,
    parts_of,
    pauses_of,
    taken_in,
)
from everturn.chat.context import memory_of, prompt_history
from everturn.chat.facts import Accepted, Context, PastEntry
from everturn.contracts.recording import Recording
from everturn.errors import EverturnError, TerminalError

DepartureKind = Literal["instructions", "tools", "input", "call", "approval", "reply", "failure"]
_OFFERED = ("tool", "handoff")
_NO_RECORDING = "no_recording"


@dataclass(frozen=True)
class Departure:
    """Where a replay is not as the recording; `lines` say how. `agent` is empty for what is of no one agent."""

    kind: DepartureKind
    agent: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Replay:
    """What came of a replay. `answered`: how many calls the recording has answered, of `recorded`.

    `ending`: `reply` if it came to a reply; `recording` if it came to where the recording ends; `departure` if it could
    not go on.
    """

    turn_id: str
    departures: Sequence[Departure]
    answered: int
    recorded: int
    ending: Literal["reply", "recording", "departure"]

    @property
    def is_same(self) -> bool:
        return not self.departures


class _Ended(TerminalError):
    """The recording has nothing more, or something else."""


class _RecordedCalls(CallLog):
    """The calls of a recording. None is made: a call that is not there ends the run."""

    is_offline = True

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        calls = [_fact(call, Call) for call in recording.calls]
        self.pauses = pauses_of(calls)
        self._taken_then = taken_in(calls)
        self.recorded = {call.id: call for call in calls if call.kind in ("model", "tool")}
        self.departures: list[Departure] = []
        self.ending: Literal["recording", "departure"] = "recording"
        self.used: set[str] = set()
        self._first = next((call for call in self.recorded.values() if call.kind == "model"), None)
        self._prompts = recording.prompts
        self._reply = recording.reply
        self._rendered: dict[str, str | None] = {}

    def instructions_of(self, agent: str) -> str | None:
        """Those of today, rendered once a run as always."""
        return self._rendered.get(agent)

    @property
    def taken(self) -> Sequence[Taken]:
        return self._taken_then

    def is_kept(self, call_id: str, question: Question) -> bool:
        return (self._unused(call_id) or self._like(question)) is not None

    def answer_to(self, call_id: str, question: Question) -> Call | None:
        self._rendered.setdefault(question.agent, question.instructions)
        found = self._unused(call_id) or self._like(question)
        if found is None:
            self._leave(question)
            raise _Ended("the recording has no answer")
        self._compare(question, found)
        answer = found.answer if found.answer is not None else _reply_as_answer(self._reply or "")
        return self._use(msgspec.structs.replace(found, answer=answer))

    def answer_of(self, call_id: str, tool: str, arguments: str) -> Call | None:
        if (found := self._unused(call_id)) is not None:
            return self._use(found)
        if self._reply is not None and call_id + BEGUN not in self.recorded:
            self.depart("call", "", f"would call the tool {tool} with {arguments}, which the recording does not have")
        raise _Ended("the recording has no answer")

    def tools_of_servers(self, agent: str) -> Sequence[Any] | None:
        call = next(self._left_of(agent), None)
        offered = self._prompts.get(parts_of(call.id)[0]) if call else None
        return offered["tools"] if isinstance(offered, dict) and isinstance(offered["tools"], list) else []

    def depart(self, kind: DepartureKind, agent: str, *lines: str) -> None:
        departure = Departure(kind, agent, lines)
        if departure not in self.departures:
            self.departures.append(departure)
        if kind not in ("instructions", "tools"):
            self.ending = "departure"

    def _unused(self, call_id: str) -> Call | None:
        return self.recorded.get(call_id) if call_id not in self.used else None

    def _use(self, call: Call) -> Call:
        self.used.add(call.id)
        self._calls[call.id] = call
        return call

    def _left_of(self, agent: str) -> Iterator[Call]:
        """The model calls of an agent that have answered nothing yet."""
        models = (call for call in self.recorded.values() if call.kind == "model" and call.agent == agent)
        return (call for call in models if call.id not in self.used)

    def _like(self, question: Question) -> Call | None:
        """The next call of the agent with that input, whatever its instructions and tools were."""
        asked = parts_of(question.digest)[2]
        return next((call for call in self._left_of(question.agent) if parts_of(call.id)[2] == asked), None)

    def _leave(self, question: Question) -> None:
        """Say why there is no answer to `question`."""
        if call := next(self._left_of(question.agent), None):
            self._compare(question, call)
            self.depart("input", question.agent, _input_line(question, item_digests_of(call, self._first)))
        elif self._reply is not None:
            line = f"would ask the model of {question.agent} once more, which the recording does not have"
            self.depart("call", question.agent, line)

    def _compare(self, question: Question, call: Call) -> None:
        """Note what of `question`, but for its input, is not what `call` was asked."""
        now, then = parts_of(question.digest), parts_of(call.id)
        if now[0] != then[0]:
            self.depart("tools", question.agent, *_offer_lines(self._prompts.get(then[0]), question.offered))
        if now[1] != then[1]:
            kept = call.instructions if call.instructions is not None else self._prompts.get(then[1])
            self.depart("instructions", question.agent, *_diff(kept, question.instructions))


async def replay(recording: Recording, assistant: Assistant, history_tokens: int) -> Replay:
    """Run a recorded turn again: no call is made, nothing is written.

    Raises TerminalError (kind `no_recording`) if a fact in it cannot be read.
    """
    log = _RecordedCalls(recording)
    try:
        text = await _run(recording, log, assistant, history_tokens)
    except _Ended:
        return _result(recording, log, log.ending)
    except EverturnError as error:
        if error.kind == _NO_RECORDING:
            raise
        if recording.error is None or recording.error.kind != error.kind:
            log.depart("failure", "", f"the run fails: {error.message} ({error.kind})")
        return _result(recording, log, "departure" if log.departures else "recording")
    if text is None:
        return _result(recording, log, log.ending)
    for pause in log.pauses[len(pauses_of(log.calls)) :]:
        tools = ", ".join(one.tool for one in pause.asked)
        log.depart("approval", "", f"does not stop to ask for {tools}, as it did")
    if text != recording.reply:
        log.depart("reply", "", *_diff(recording.reply, text))
    return _result(recording, log, "reply")


async def _run(recording: Recording, log: _RecordedCalls, assistant: Assistant, history_tokens: int) -> str | None:
    """The reply of the run; None if it waits for a decision that the recording does not have."""
    accepted, context = _fact(recording.accepted, Accepted), _fact(recording.context, Context)
    recent = [_fact(entry, PastEntry) for entry in recording.recent]
    memory = memory_of(context, accepted.user_id)
    window = prompt_history(context, recent, accepted.given, history_tokens)
    decisions: dict[str, Decision] = {}
    while True:
        try:
            return await assistant.reply(memory, window, accepted.text, context.missing, log, decisions)
        except RunStopped:
            assert log.pause is not None
            wanted = {one.call_id: one.tool for one in log.pause.asked}
        known = {one.call_id for pause in log.pauses for one in pause.asked}
        for call_id in wanted.keys() - known:
            log.depart("approval", "", f"stops to ask for {wanted[call_id]}, as it did not")
        if not wanted.keys() <= recording.decisions.keys():
            return None
        decisions = {
            call_id: Decision(decision=given.decision, at="", reason=given.reason)
            for call_id, given in recording.decisions.items()
        }


def _result(recording: Recording, log: _RecordedCalls, ending: Literal["reply", "recording", "departure"]) -> Replay:
    finished = [call for call in log.recorded.values() if call.finished_at]
    return Replay(recording.turn_id, log.departures, len(log.used), len(finished), ending)


def _fact(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        sentence = f"the recording has a part that is no {kind.__name__}"
        raise TerminalError(sentence, kind=_NO_RECORDING) from error


def _reply_as_answer(text: str) -> dict[str, Any]:
    """The answer that ended a run, of which the reply is kept alone."""
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": "reply", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
    return {"output": [message], "usage": {}, "response_id": None}


def _diff(recorded: Any, now: Any) -> list[str]:
    then, today = (text.splitlines() if isinstance(text, str) else [] for text in (recorded, now))
    return list(unified_diff(then, today, "recorded", "today", lineterm="", n=1))


def _offer_lines(recorded: Any, now: Mapping[str, Any]) -> Iterator[str]:
    """What is offered to a model today and was not, the other way round, and what has changed."""
    if not isinstance(recorded, dict):
        yield "the tools or handoffs are not the recorded ones, which are not kept any more"
        return
    for what in _OFFERED:
        then, today = (_by_name(offer.get(f"{what}s", [])) for offer in (recorded, now))
        yield from (f"{what} {name} is new" for name in today if name not in then)
        yield from (f"{what} {name} is gone" for name in then if name not in today)
        for name in today:
            if name in then and then[name] != today[name]:
                yield f"{what} {name} has changed:"
                yield from _diff(*(json.dumps(shape, indent=2, sort_keys=True) for shape in (then[name], today[name])))
    if _names(recorded) != _names(now) and sorted(_names(recorded)) == sorted(_names(now)):
        yield "the order of the tools has changed"


def _by_name(offers: Any) -> dict[str, Any]:
    return {offer if isinstance(offer, str) else offer[0]: offer for offer in offers}


def _names(offered: Mapping[str, Any]) -> list[str]:
    return [name for what in _OFFERED for name in _by_name(offered.get(f"{what}s", []))]


def _input_line(question: Question, recorded: Sequence[str]) -> str:
    """Which item of the input is the first that is not the recorded one."""
    now = question.item_digests
    at = next((at for at, (new, old) in enumerate(zip_longest(now, recorded)) if new != old), None)
    if at is None:
        return "the input is not the recorded one"
    what = _described(question.items[at]) if at < len(now) else "missing"
    counts = f"{len(now)} items, {len(recorded)} recorded"
    return f"item {at + 1} of the input is not the recorded one: it is {what} ({counts})"


def _described(item: Any) -> str:
    if not isinstance(item, dict):
        return "a text"
    return f"a message of the {item['role']}" if "role" in item else f"a {item.get('type', 'part')}"
