"""The offline demo as a chat model. It knows what stands in its instructions and its input, like any other model."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Tool
from agents.items import TResponseInputItem, TResponseOutputItem
from openai.types.responses import ResponseFunctionToolCall

from everturn.models.fence import unfence
from everturn.models.offline import clock, wording
from everturn.models.offline.facts import Fact, FactKind, merge
from everturn.models.offline.model import OfflineModel, message_of, user_text
from everturn.models.offline.questions import Question, Topic, asked_in, courtesies
from everturn.models.offline.statements import clauses, is_question, stated, stated_in
from everturn.models.offline.summaries import read

_TIME_TOOL = "get_current_time"


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation as the demo reads it."""

    name: str
    formal: bool
    told_before: list[Fact]
    message: str
    tool_results: dict[str, str]


class OfflineChatModel(OfflineModel):
    """Greets by name and style, remembers and recalls, tells the time through the tool; says so where it cannot."""

    def respond(
        self, instructions: str, items: Sequence[TResponseInputItem], tools: Sequence[Tool]
    ) -> list[TResponseOutputItem]:
        talk = _talk(instructions, items)
        has_clock = any(tool.name == _TIME_TOOL for tool in tools)
        wanted = [
            part for part in map(asked_in, clauses(talk.message)) if part is not None and part.topic is Topic.TIME
        ]
        if wanted and has_clock and not talk.tool_results:
            return [_time_call(question) for question in wanted]
        return [message_of(" ".join(_parts(talk)))]


def _talk(instructions: str, items: Sequence[TResponseInputItem]) -> _Talk:
    memory = unfence(instructions)
    name = str(memory.get("name", "")).strip() or "friend"
    said = [text for item in items if (text := user_text(item)) is not None]
    history, message = said[:-1], said[-1] if said else ""
    facts = read(str(memory.get("user_summary", "")), name)
    for text in history:
        facts += stated(text)
    formal = wording.is_formal(str(memory.get("preferred_style", "")))
    return _Talk(name, formal, facts, message, _tool_results(items))


def _tool_results(items: Sequence[TResponseInputItem]) -> dict[str, str]:
    """The results of this turn's calls of the clock, by their arguments."""
    calls: dict[str, str] = {}
    results: dict[str, str] = {}
    for item in items:
        parts: Any = item
        if parts.get("type") == "function_call" and parts.get("name") == _TIME_TOOL:
            calls[parts["call_id"]] = parts["arguments"]
        elif parts.get("type") == "function_call_output" and parts.get("call_id") in calls:
            results[calls[parts["call_id"]]] = str(parts["output"])
    return results


def _parts(talk: _Talk) -> list[str]:
    """What to say: a courtesy, what was noted, the answers; or that the demo did not understand."""
    new = stated(talk.message)
    facts = merge([*talk.told_before, *new])
    names = [fact.value for fact in facts if fact.kind is FactKind.NAME]
    name = names[-1] if names else talk.name
    said = [wording.courtesy(topic, name, formal=talk.formal) for topic in courtesies(talk.message)]
    if new:
        said.append(wording.noted(merge(new), formal=talk.formal))
    said += list(dict.fromkeys(_answers(talk, facts)))
    return said or [wording.not_understood(formal=talk.formal)]


def _answers(talk: _Talk, facts: Sequence[Fact]) -> Iterator[str]:
    for clause in clauses(talk.message):
        if stated_in(clause):
            continue
        question = asked_in(clause)
        if question is None:
            if is_question(clause) and not courtesies(clause):
                yield wording.not_understood(formal=talk.formal)
        elif question.topic is Topic.TIME:
            yield clock.told(talk.tool_results.get(_arguments(question), ""), question.about)
        else:
            yield wording.answer(question, facts, talk.name)


def _arguments(question: Question) -> str:
    zone = clock.time_zone(question.about) if question.about else None
    return json.dumps({"timezone": zone} if zone else {})


def _time_call(question: Question) -> ResponseFunctionToolCall:
    call_id = f"call_{uuid.uuid4().hex}"
    return ResponseFunctionToolCall(
        id=call_id, call_id=call_id, name=_TIME_TOOL, arguments=_arguments(question), type="function_call"
    )
