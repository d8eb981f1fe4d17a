"""The client's models: of a turn and of a summary. What they do stands in the message; what they were asked is logged.

A message is `name word…`: each of `500` and `429` is an error that is given once, before the reply, and `401` one that
is given until the client forgives it; `slow=N` lets every call take N seconds; `tool` asks for a tool first; `paid` is
a turn that calls tools first.
"""

from collections.abc import AsyncIterator, Callable
from itertools import takewhile
from typing import Any

from agents import Model, ModelResponse, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall

from everturn.models.faults import status_fault
from everturn.models.offline.model import message_of
from tests.chaos.journal import Journal, ModelCall, summary_of
from tests.chaos.paid import PAID, asks
from tests.chaos.simulated_loop import pass_time

# Seconds that a call takes at least.
_CALL_S = 0.01


class ClientModel(Model):
    """Part of the client: it hears of nothing from a machine that is dead."""

    def __init__(self, journal: Journal, life: int, is_dead: Callable[[], bool]) -> None:
        self._journal = journal
        self._life = life
        self._is_dead = is_dead

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError


class TurnModel(ClientModel):
    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:  # noqa: A002, ARG002
        journal = self._journal
        said = [(str(item["role"]), _text(item["content"])) for item in input if "role" in item]
        has_tool = any(item.get("type") == "function_call_output" for item in input)
        own = len(said) - len(list(takewhile(lambda entry: entry[0] == "user", reversed(said))))
        name, *words = said[own][1].split()
        if PAID in words and (output := await asks(name, input)):
            return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)
        call = ModelCall(self._life, journal.tick(), name, said[:own], [text.split()[0] for _, text in said[own + 1 :]])
        if not self._is_dead():
            journal.calls.append(call)
        await pass_time(_CALL_S + sum(float(word[5:]) for word in words if word.startswith("slow=")))
        errors = [word for word in words if word in ("500", "429")][journal.faults[name] :]
        if "401" in words and name not in journal.forgiven:
            errors = ["401"]
        wants_tool = "tool" in words and not has_tool
        if wants_tool:
            errors = []
        reply = f"re:{name}:{call.sent}"
        if not self._is_dead():
            call.answered = journal.tick()
            journal.faults[name] += bool(errors)
            call.reply = None if errors or wants_tool else reply
        if errors:
            raise status_fault(int(errors[0]), {"retry-after": "7"} if errors[0] == "429" else {})
        return _TOOL_CALL if wants_tool else _said(reply)


class SummaryModel(ClientModel):
    """A summary is `seen:` and the names of the messages in it, one as often as it was brought in."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:  # noqa: A002, ARG002
        text = input if isinstance(input, str) else str(input[-1]["content"])
        await pass_time(_CALL_S)
        return _said(summary_of(text))


def _text(content: Any) -> str:
    """A message that was in the state of a run has its text in parts."""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


_CALL = ResponseFunctionToolCall(type="function_call", call_id="c", name="get_current_time", arguments="{}")
_TOOL_CALL = ModelResponse(output=[_CALL], usage=Usage(requests=1), response_id=None)


def _said(text: str) -> ModelResponse:
    return ModelResponse(output=[message_of(text)], usage=Usage(requests=1), response_id=None)
