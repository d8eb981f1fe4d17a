"""A turn with four model calls, two parallel tools, a handoff and an approval: what is asked and answered, and what
must have been made when it has ended, whatever was killed meanwhile.

Its assistant is `tests.system.paid_assistant`.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everturn.testing.model_answers import Whole, completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint, ModelRequest

OURS = "tests.system.paid_assistant:agent"
MESSAGE = "mail both and book"
TOOLS = {"mail ann", "mail bob", "book PK301"}
# What the model answers to a question that ends with this text. As a real one, it answers the same again.
SCRIPT: dict[str, Whole] = {
    MESSAGE: tool_calls(("send_mail", '{"to": "ann"}'), ("send_mail", '{"to": "bob"}')),
    "sent to bob": tool_calls(("transfer_to_booker", "{}")),
    "booker": tool_calls(("book", '{"flight": "PK301"}')),
    "booked PK301": completion("All is done."),
}


def script(endpoint: ModelEndpoint, times: int) -> None:
    """Let `endpoint` answer so many of these turns."""
    for text, answer in SCRIPT.items():
        endpoint.script_for(text, *times * [answer])


def asked_in(requests: Sequence[ModelRequest], text: str = MESSAGE) -> int:
    """How often the model was asked in turns whose message contains `text`."""
    return sum(bool(request.body.get("tools")) and text in str(request.body["messages"]) for request in requests)


@dataclass(frozen=True)
class Made:
    """What was called for a turn: how often a tool did what, with which keys, and how often the model was asked."""

    tools: Mapping[str, int]
    keys: Collection[str]
    asked: int


def made_in(effects: Path, turn_id: str, requests: Sequence[ModelRequest], text: str) -> Made:
    """Of a turn whose tools wrote to the file `effects` (`paid_assistant.EFFECTS`)."""
    lines = [line.split("\t") for line in effects.read_text().splitlines()] if effects.exists() else []
    ours = [(key, what) for key, what in lines if key.startswith(turn_id)]
    return Made(Counter(what for _, what in ours), {key for key, _ in ours}, asked_in(requests, text))


def check(turn: dict[str, Any], made: Made, where: str, most_again: int) -> None:
    """Each call was made once, those in flight at the crash twice at most, with one key, and shown and counted once."""
    again = sum(made.tools.values()) - len(TOOLS) + made.asked - len(SCRIPT)
    assert turn["reply"]["reply"] == "All is done.", where
    assert set(made.tools) == TOOLS, where
    assert max(made.tools.values()) <= 2, where
    assert again <= most_again, f"{where}: {again} calls were made again"
    assert len(set(made.keys)) == len(TOOLS), where
    assert [call["kind"] for call in turn["calls"]] == ["model", "tool", "tool", "model", "model", "tool", "model"], (
        where
    )
    used = turn["reply"]["usage"]
    assert (used["model_calls"], used["tool_calls"]) == (len(SCRIPT), len(TOOLS)), where
