"""The calls of models and tools that a run of a turn has made: facts of its journal, numbered from 1.

The next attempt finds the answers there, and makes none of the calls a second time.
"""

import asyncio
import json
from base64 import b32encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from itertools import takewhile
from typing import Any, ClassVar, Literal

import msgspec

from everturn.chat.facts import Fact, Merged, Reply, TurnFacts, TurnRun, Verdict
from everturn.chat.journal import Journal
from everturn.chat.streamed_words import WordWriter
from everturn.contracts import chat as shapes
from everturn.contracts.fields import to_wire, utc_now
from everturn.errors import TerminalError, TransientError

_READ_BATCH = 16
# Characters (base32) of the digests of what a model is offered, of its instructions and of its input; and those of an
# item of the input, which say where one departs from another.
_OFFERED_CHARS, _INSTRUCTIONS_CHARS, _INPUT_CHARS = 7, 7, 10
_ITEM_CHARS = 4
# The end of the id of a call that was begun and is not to be made twice.
BEGUN = "-begun"


@dataclass(frozen=True)
class Question:
    """What the model of an agent is asked, in plain JSON. `offered`: the tools and handoffs."""

    agent: str
    instructions: str | None
    items: Sequence[Any]
    offered: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """One text for the three parts; see `parts_of`."""
        offered = _digest([self.agent, self.offered])[:_OFFERED_CHARS]
        instructions = _digest(self.instructions)[:_INSTRUCTIONS_CHARS]
        return offered + instructions + _digest(self._item_digests)[:_INPUT_CHARS]

    @property
    def item_digests(self) -> list[str]:
        return [digest[:_ITEM_CHARS] for digest in self._item_digests]

    @cached_property
    def _item_digests(self) -> list[str]:
        return [_digest(item) for item in self.items]


_in_order = json.JSONEncoder(sort_keys=True).encode


def _digest(value: Any) -> str:
    """16 characters."""
    return b32encode(sha256(_in_order(value).encode()).digest()[:10]).decode().lower()


def parts_of(call_id: str) -> tuple[str, str, str]:
    """The digests of what was offered, of the instructions and of the input, of the id of a model call."""
    end = _OFFERED_CHARS + _INSTRUCTIONS_CHARS
    return call_id[:_OFFERED_CHARS], call_id[_OFFERED_CHARS:end], call_id[end : end + _INPUT_CHARS]


class Call(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A call that was made, with its answer in JSON. Of kind `approval`: the run stopped to ask, `answer` is a `Pause`.
    Of kind `merge`: the run took up another message, `answer` is a `Taken`.

    `id`: of a model call a digest of what was asked, of a tool call that of its model call and its place in the answer.
    Without `finished_at`: a call that is not to be made twice was begun; `answer` is an id of that attempt, so that it
    knows its own fact. `tokens`: input and output. `instructions`:
    what the agent was run with, if a function rendered them. `items`: of a model call, the digests of the items of its
    input, in one text, but for the first `shared` ones, which are those of the run's first model call.
    """

    is_cached: ClassVar[bool] = False

    id: str
    kind: Literal["model", "tool", "approval", "merge"]
    name: str
    agent: str
    started_at: str
    finished_at: str | None = None
    attempts: int = 1
    error: str = ""
    tokens: list[int] = msgspec.field(default_factory=list)
    instructions: str | None = None
    items: str = ""
    shared: int = 0
    answer: Any = None


class Asked(msgspec.Struct, frozen=True):
    """A call of a tool about which a person decides. `sdk_id`: its id in the state of the run."""

    call_id: str
    sdk_id: str
    tool: str
    arguments: Any


class Pause(msgspec.Struct, frozen=True):
    """A run that stopped at `asked_at`: what it asks, and the SDK's `RunState` from which it goes on."""

    asked: list[Asked]
    asked_at: str
    expires_at: str
    state: dict[str, Any]


class Taken(msgspec.Struct, frozen=True):
    """A message that the run took up: after so many items of what its model is asked."""

    message: Merged
    index: int


class Decision(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """What a person, or the end of their time, decided about a call."""

    decision: Literal["approve", "reject"]
    at: str
    reason: str | None = None


# Makes a call the fact of that number; the one that was first.
WriteCall = Callable[[int, Call], Awaitable[Call]]


class CallLog:
    """The calls of a run. `key` begins the keys that tools are called with. Without `write` nothing is kept.

    `is_offline`: no call is made, so MCP servers are not connected.
    """

    is_offline: ClassVar[bool] = False

    def __init__(
        self,
        key: str = "",
        model_name: str = "",
        calls: Iterable[Call] = (),
        write: WriteCall | None = None,
        paid: Callable[[Call], None] = lambda _: None,
        decide_within: timedelta = timedelta(days=1),
    ) -> None:
        """`paid` is called with each call that this process was the first to write."""
        self.model_name = model_name
        # Gets the words of the reply as they come, if the turn is streamed.
        self.writer: WordWriter | None = None
        self._is_cancelled = False
        # Of the model calls in flight.
        self._limits: set[asyncio.Timeout] = set()
        # Keeps a part of what models are asked, under its digest.
        self.keep_prompt: Callable[[str, Any], Awaitable[None]] | None = None
        # The model call that ended the run: the verdict has its answer.
        self.last: Call | None = None
        # The messages that the turn has taken up by now; True before the first model call of an attempt.
        self.take: Callable[[bool], Awaitable[Sequence[Merged]]] | None = None
        # Those of them that the last model call was asked with.
        self.merged: list[Merged] = []
        self._key = key
        self._calls = {call.id: call for call in calls}
        self._write = write
        self._paid = paid
        self._decide_within = decide_within
        self._one_by_one = asyncio.Lock()

    @property
    def calls(self) -> Sequence[Call]:
        return list(self._calls.values())

    @property
    def pause(self) -> Pause | None:
        """The last one of the run."""
        found = pauses_of(self._calls.values())
        return found[-1] if found else None

    async def stop(self, agent: str, asked: list[Asked], state: dict[str, Any]) -> None:
        """Keep that the run stops to ask."""
        now = utc_now()
        at, expires_at = to_wire(now), to_wire(now + self._decide_within)
        pause = Pause(asked=asked, asked_at=at, expires_at=expires_at, state=state)
        number = 1 + len(pauses_of(self._calls.values()))
        answer = msgspec.to_builtins(pause)
        await self.add(
            Call(id=f"approval-{number}", kind="approval", name="", agent=agent, started_at=at, answer=answer)
        )

    @property
    def taken(self) -> Sequence[Taken]:
        """The messages that the run has taken up, in their order."""
        return taken_in(self._calls.values())

    async def take_up(self, index: int, *, is_first: bool) -> None:
        """Keep that the run takes up what has come, after so many items of what its model is asked."""
        for message in await self.take(is_first) if self.take else ():
            answer, at = msgspec.to_builtins(Taken(message, index)), to_wire(utc_now())
            call_id = f"merge-{message.turn_id}"
            await self.add(Call(id=call_id, kind="merge", name="", agent="", started_at=at, answer=answer))

    def is_kept(self, call_id: str, _question: Question) -> bool:
        """Whether the model call has been made."""
        return call_id in self._calls

    @property
    def model_calls(self) -> int:
        return sum(call.kind == "model" for call in self._calls.values())

    def cancel(self) -> None:
        """Break off the model calls in flight, and let no further call be made."""
        self._is_cancelled = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0)

    def check(self) -> None:
        """Raises TerminalError (kind `cancelled`) if no further call is to be made."""
        if self._is_cancelled:
            raise TerminalError("the turn was cancelled", kind="cancelled")

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Limit a model call. Raises TimeoutError, or as `check` if it is broken off."""
        self.check()
        try:
            async with asyncio.timeout(seconds) as limit:
                self._limits.add(limit)
                yield
        except TimeoutError:
            self.check()
            raise
        finally:
            self._limits.discard(limit)

    def answer_to(self, call_id: str, _question: Question) -> Call | None:
        """The model call that was asked `question`; None if it is to be made."""
        return self._calls.get(call_id)

    def answer_of(self, call_id: str, _tool: str, _arguments: str) -> Call | None:
        """The tool call of that id; None if it is to be made."""
        return self._calls.get(call_id)

    def tools_of_servers(self, _agent: str) -> Sequence[Any] | None:
        """The tools that the MCP servers of an agent have listed, as in a `Question`; None if they are to be asked."""
        return None

    async def keep_question(self, call_id: str, question: Question, rendered: str | None) -> None:
        """Keep what many turns are asked alike, once for all of them; `rendered` instructions are the call's own.

        Before the call is made: a store that refuses then costs no answer.
        """
        offered, instructions, _ = parts_of(call_id)
        if self.keep_prompt:
            await self.keep_prompt(offered, question.offered)
            if rendered is None:
                await self.keep_prompt(instructions, question.instructions)

    def described(self, call: Call, question: Question) -> Call:
        """`call` with what a replay compares."""
        first = next((one for one in self._calls.values() if one.kind == "model"), None)
        pairs = zip(question.item_digests, item_digests_of(first, first), strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return msgspec.structs.replace(call, items="".join(question.item_digests[shared:]), shared=shared)

    def instructions_of(self, agent: str) -> str | None:
        """The instructions that were rendered when `agent` began in this run; None if it has not."""
        found = (call.instructions for call in self._calls.values() if call.agent == agent)
        return next((text for text in found if text is not None), None)

    def key_of(self, call_id: str) -> str:
        """The idempotency key of a tool call: the same for each of its attempts."""
        return f"{self._key}.{call_id}"

    async def add(self, call: Call) -> Call:
        """Keep `call`; the one that counts, if another process was first. Without gaps, so one after the other.

        Raises TransientError (kind `other_attempt`) if another attempt has asked a model for something else, as with a
        clock in its instructions: its calls are the run's, and the next attempt finds them.
        """
        async with self._one_by_one:
            while (found := self._calls.get(call.id)) is None:
                there = await self._write(len(self._calls) + 1, call) if self._write else call
                self._calls[there.id] = there
                if there is call:
                    self._paid(call)
                elif call.kind == there.kind == "model" and call.id != there.id:
                    raise TransientError("another attempt runs at the same time", kind="other_attempt")
            return found

    def usage(self) -> dict[str, int]:
        """Tokens and calls of the run, in the words of `ChatReply.usage`."""
        made = [call for call in self._calls.values() if call.finished_at]
        models = [call for call in (*made, *([self.last] if self.last else [])) if call.kind == "model"]
        return {
            "input_tokens": sum(call.tokens[0] for call in models if call.tokens),
            "output_tokens": sum(call.tokens[1] for call in models if call.tokens),
            "model_calls": len(models),
            "tool_calls": sum(call.kind == "tool" for call in made),
        }


def item_digests_of(call: Call | None, first: Call | None) -> list[str]:
    """The digests of the items of a model call's input; `first`: that of its run."""
    if call is None or first is None:
        return []
    own = [call.items[at : at + _ITEM_CHARS] for at in range(0, len(call.items), _ITEM_CHARS)]
    return own if call is first else [*item_digests_of(first, first)[: call.shared], *own]


async def calls_of(journal: Journal, run: TurnRun, first: int = 1) -> list[Call]:
    """The calls of `run` from number `first` on, in the order in which they were written."""
    calls: list[Call] = []
    batch = 1  # most runs have none: one key is asked for, then more at a time
    while True:
        keys = [run.key(f"call:{first + len(calls) + place}") for place in range(batch)]
        found = await journal.read_all(dict.fromkeys(keys, Call))
        for key in keys:
            if key not in found:
                return calls
            calls.append(found[key])
        batch = _READ_BATCH


async def open_call_log(
    journal: Journal,
    run: TurnRun,
    model_name: str,
    paid: Callable[[Call], None],
    decide_within: timedelta,
) -> tuple[Verdict | None, CallLog]:
    """The verdict of `run`, and its calls so far; one request if there are none."""
    first = run.key("call:1")
    found = await journal.read_all({run.key("verdict"): Verdict, first: Call})
    verdict: Verdict | None = found.get(run.key("verdict"))
    if verdict is None and (legacy := await journal.legacy(run)):
        verdict = legacy.verdict
    calls = await calls_of(journal, run) if first in found and verdict is None else []

    async def write(number: int, call: Call) -> Call:
        return await journal.write(run.key(f"call:{number}"), call)

    # A person is asked for as long as the calls before are kept, at most.
    age = utc_now() - datetime.fromisoformat(calls[0].started_at) if calls else timedelta()
    within = min(decide_within, journal.keep - age)
    found_calls = CallLog(run.instance_id, model_name, calls, write, paid, within)
    found_calls.keep_prompt = journal.keep_prompt
    return verdict, found_calls


async def decisions_of(journal: Journal, run: TurnRun, pause: Pause) -> dict[str, Decision]:
    """What was decided about the calls of a pause, by their ids; if its time is over, about all of them."""
    keys = {decision_key(run, one.call_id): one.call_id for one in pause.asked}
    found = await journal.read_all(dict.fromkeys(keys, Decision))
    if datetime.fromisoformat(pause.expires_at) <= utc_now():
        late = Decision(decision="reject", at=to_wire(utc_now()), reason="nobody decided in time")
        for key in keys.keys() - found.keys():
            found[key] = await journal.write(key, late)
    return {keys[key]: decision for key, decision in found.items()}


def pauses_of(calls: Iterable[Call]) -> list[Pause]:
    return [msgspec.convert(call.answer, Pause) for call in calls if call.kind == "approval"]


def taken_in(calls: Iterable[Call]) -> list[Taken]:
    """The messages that a run took up, in their order."""
    return [msgspec.convert(call.answer, Taken) for call in calls if call.kind == "merge"]


def decision_key(run: TurnRun, call_id: str) -> str:
    return run.key(f"decision:{call_id}")


# What a client reads of a call that did not work, by its kind.
_ERRORS = {
    "tool_failed": "the tool failed",
    "outcome_unknown": "a crash came before the tool's answer; it was not called again",
}


async def shown_calls(journal: Journal, facts: TurnFacts, *, with_content: bool = False) -> list[shapes.Call]:
    """The calls of the last run of a turn, as a client sees them; `with_content` also their arguments and answers."""
    verdict = facts.verdict
    is_plain = isinstance(verdict, Reply) and verdict.usage.get("model_calls", 1) == 1
    calls = [] if is_plain else await calls_of(journal, facts.run)
    if isinstance(verdict, Reply) and verdict.last_call:
        calls.append(msgspec.structs.replace(msgspec.convert(verdict.last_call, Call), answer=verdict.text))
    finished = {call.id for call in calls if call.finished_at}
    calls = [call for call in calls if call.kind in ("model", "tool")]
    begun = [call for call in calls if call.finished_at or call.id.removesuffix(BEGUN) not in finished]
    return [_shown(call, _arguments(call.id, calls) if with_content else None, with_content) for call in begun]


def _shown(call: Call, arguments: Any, with_content: bool) -> shapes.Call:
    failure = shapes.Failure(kind=call.error, message=_ERRORS.get(call.error, "it failed")) if call.error else None
    return shapes.Call(
        call_id=call.id.removesuffix(BEGUN),
        kind="model" if call.kind == "model" else "tool",
        name=call.name,
        agent=call.agent,
        attempts=call.attempts,
        started_at=call.started_at,
        finished_at=call.finished_at,
        error=failure,
        tokens=shapes.Tokens(input=call.tokens[0], output=call.tokens[1]) if call.tokens else None,
        arguments=arguments,
        answer=call.answer if with_content and call.finished_at else None,
    )


def _arguments(call_id: str, calls: Sequence[Call]) -> Any:
    """The arguments of a tool call: its model call's answer has them."""
    model_call, _, place = call_id.removesuffix(BEGUN).rpartition("-")
    answer = next((call.answer for call in calls if call.id == model_call and call.kind == "model"), None)
    if not answer:
        return None
    return read_arguments(answer["output"][int(place)].get("arguments"))


def read_arguments(arguments: Any) -> Any:
    """What a model wrote as JSON; as it is, if it is none."""
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments


async def shown_approvals(journal: Journal, run: TurnRun) -> list[shapes.Approval]:
    """What a run waits for, as a client sees it."""
    pauses = pauses_of(await calls_of(journal, run))
    if not pauses:
        return []
    pause = pauses[-1]
    decisions = await decisions_of(journal, run, pause)
    return [
        shapes.Approval(
            call_id=one.call_id,
            tool=one.tool,
            arguments=one.arguments,
            asked_at=pause.asked_at,
            expires_at=pause.expires_at,
        )
        for one in pause.asked
        if one.call_id not in decisions
    ]
