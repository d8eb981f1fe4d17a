"""What a client knows: its requests and the answers, and what its model was asked. It outlives every crash."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from everturn.models.texts import unfence

_SEEN = "seen:"


@dataclass(slots=True)
class Exchange:
    """A request and its answer. `sent` and `answered` are places in the order of all that the client saw.

    `answered` is None if no answer came: the machine died.
    """

    life: int
    sent: int
    method: str
    path: str
    body: Any = None
    key: str | None = None
    answered: int | None = None
    status: int = 0
    answer: Any = None


@dataclass(slots=True)
class ModelCall:
    """The model was asked for the reply to the message `name`; `history` is what the prompt says went before.

    `answered`: the place of its answer, None if none was given. `reply` is None for an error. `cut_off`: the machine
    died before the answer was on disk, as the one who pulled the plug knows.
    `merged`: the other messages that it was asked with.
    """

    life: int
    sent: int
    name: str
    history: list[tuple[str, str]]
    merged: list[str] = field(default_factory=list)
    answered: int | None = None
    reply: str | None = None
    cut_off: bool = False


@dataclass(slots=True)
class PaidCall:
    """A tool was called with `key`, or the model, which asked for tools. `cut_off`: as in `ModelCall`."""

    life: int
    sent: int
    key: str
    what: str
    cut_off: bool = False

    @property
    def answer(self) -> str:
        return f"answer {self.sent} to {self.what}"


@dataclass(slots=True)
class Journal:
    """All of it, in order. `done` has the answer of each thing that the client set out to do, by a name it gave.

    `faults` counts the errors that the model has given, by message; `forgiven` are those that get none any more.
    `troubled`: the state store refused something, or its answer got lost.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    paid: list[PaidCall] = field(default_factory=list)
    summaries: list[tuple[int, list[str]]] = field(default_factory=list)
    done: dict[str, Exchange] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    forgiven: set[str] = field(default_factory=set)
    now: int = 0
    troubled: bool = False

    def tick(self) -> int:
        self.now += 1
        return self.now

    def posts(self) -> list[Exchange]:
        """The messages that were sent, each as often as it was."""
        return [item for item in self.exchanges if item.path == "/chat/"]

    def turn_of(self) -> dict[str, str]:
        """By the name of a message, the id of its turn as the client first heard it."""
        found: dict[str, str] = {}
        for post in self.posts():
            if post.key is not None and isinstance(post.answer, dict) and "turn_id" in post.answer:
                found.setdefault(post.key, post.answer["turn_id"])
        return found

    def turn_ids(self) -> list[str]:
        return list(self.turn_of().values())

    def sessions(self) -> list[tuple[str, str]]:
        """Each session in which a turn was accepted, with its user."""
        turns = self.turn_of()
        bodies = [post.body for post in self.posts() if post.key in turns]
        return list(dict.fromkeys((body["metadata"]["session_id"], body["user_id"]) for body in bodies))

    def names(self, session: str) -> list[tuple[str, str]]:
        """The messages of a session that have a turn, with it."""
        turns = self.turn_of()
        sent = dict.fromkeys(post.key for post in self.posts() if post.body["metadata"]["session_id"] == session)
        return [(name, turns[name]) for name in sent if name in turns]

    def got(self, method: str, path: str) -> list[Exchange]:
        """The exchanges of that method and path that have an answer, in order of the answers."""
        found = [item for item in self.exchanges if item.answered is not None]
        found = [item for item in found if item.method == method and item.path == path]
        return sorted(found, key=lambda item: item.answered or 0)


def summary_of(prompt: str) -> str:
    """What the summary model answers: `seen:` and the names of the messages in it, as often as each came."""
    data = unfence(prompt)
    names = [said.split()[0] for turn in data["new_turns"] for said in str(turn["user"]).splitlines()]
    return " ".join([_SEEN, *names_in(str(data["previous_summary"])), *names])


def names_in(summary: str) -> list[str]:
    """The messages that a summary has in it."""
    return summary.removeprefix(_SEEN).split() if summary.startswith(_SEEN) else []
