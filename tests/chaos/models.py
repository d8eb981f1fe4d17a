"""The client's models: of a turn and of a summary. What they do stands in the message; what they were asked is logged.

A message is `name word…`: each of `500` and `429` is an error that is given once, before the reply, and `401` one that
is given until the client forgives it; `slow=N` lets every call take N seconds.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import Model, ModelResponse, Usage
from agents.items import TResponseStreamEvent

from everturn.models.faults import status_fault
from everturn.models.offline.model import message_of
from everturn.testing.simulated_loop import pass_time
from tests.chaos.journal import Journal, ModelCall, summary_of

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
        said = [(str(item["role"]), str(item["content"])) for item in input]
        name, *words = said[-1][1].split()
        call = ModelCall(self._life, journal.tick(), name, said[:-1])
        if not self._is_dead():
            journal.calls.append(call)
        await pass_time(_CALL_S + sum(float(word[5:]) for word in words if word.startswith("slow=")))
        errors = [word for word in words if word in ("500", "429")][journal.faults[name] :]
        if "401" in words and name not in journal.forgiven:
            errors = ["401"]
        reply = f"re:{name}:{call.sent}"
        if not self._is_dead():
            call.answered = journal.tick()
            journal.faults[name] += bool(errors)
            call.reply = None if errors else reply
        if errors:
            raise status_fault(int(errors[0]), {"retry-after": "7"} if errors[0] == "429" else {})
        return _said(reply)


class SummaryModel(ClientModel):
    """A summary is `seen:` and the names of the messages in it, one as often as it was brought in."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:  # noqa: A002, ARG002
        text = input if isinstance(input, str) else str(input[-1]["content"])
        await pass_time(_CALL_S)
        return _said(summary_of(text))


def _said(text: str) -> ModelResponse:
    return ModelResponse(output=[message_of(text)], usage=Usage(requests=1), response_id=None)
