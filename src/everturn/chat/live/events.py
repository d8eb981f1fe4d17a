"""The events of a run, in the words of AG-UI 1.0 (https://docs.ag-ui.com/concepts/events), folded from its facts. Pure.

The same facts give the same events with the same ids, however often and wherever they are read; more facts only add
events at the end. An id is a position: numbers with dots between them, in the order of the events. It begins with the
number of the run.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, assert_never

from ag_ui.core import (
    AssistantMessage,
    BaseEvent,
    Interrupt,
    Message,
    MessagesSnapshotEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedOutcome,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    StepFinishedEvent,
    StepStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    UserMessage,
)
from pydantic_core import to_json

from everturn.chat.calls import Asked, Call, Pause, pauses_of
from everturn.chat.facts import Cancelled, Failed, Outcome, Reply, TurnFacts, TurnRun, Verdict
from everturn.chat.streamed_words import Words
from everturn.chat.workflow.chat_turn import FETCH_CONTEXT, SAVE_CONVERSATION

GENERATE_RESPONSE = "generate_response"

Position = tuple[int, ...]

# The second number of a position.
_STARTED, _FETCH, _FETCHED, _GENERATE, _MESSAGES, _GENERATED, _SAVE, _SAVED, _ENDED = range(9)
# The last number of the position of an event of a message; the one before is the offset in its text. What comes before
# them says which message: after how many calls, and in which attempt.
_MESSAGE_START, _MESSAGE_CONTENT, _MESSAGE_END, _SNAPSHOT = range(4)
_MESSAGE = 5

# What a client sends back for an interrupt, as JSON Schema.
_DECISION = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}

_Placed = tuple[Position, BaseEvent]


@dataclass(frozen=True)
class LiveEvent:
    """An event and its place among those of its turn."""

    position: Position
    body: BaseEvent

    @property
    def id(self) -> str:
        return ".".join(map(str, self.position))

    @cached_property
    def encoded(self) -> bytes:
        """As an event of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        return f"id: {self.id}\ndata: {self.body.model_dump_json(by_alias=True)}\n\n".encode()


def position_of(event_id: str) -> Position | None:
    """The position that `event_id` says; None if it is none."""
    numbers = event_id.split(".")
    if len(event_id) <= 100 and all(number.isascii() and number.isdecimal() for number in numbers):
        return tuple(map(int, numbers))
    return None


@dataclass(slots=True)
class _Said:
    """The message that is being said: after `calls` calls of the run, in that attempt."""

    calls: int
    attempt: int
    text: str = ""


class EventFold:
    """Folds the facts of a run, as they come, into its events."""

    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._words: deque[Words] = deque()
        self._calls: deque[Call] = deque()
        self._last: Position = ()
        self._attempt = -1
        self._run_id = run.accepted.run_id or run.turn_id
        # The number of the pause that the run is in.
        self._pause = 0
        self._said: _Said | None = None
        self._messages: list[Message] = [user_message(run)]
        # How many words and calls have been folded.
        self._folded_words = self._folded_calls = 0

    @property
    def next_words(self) -> int:
        """The number of the words that are wanted next; the first call that is, below."""
        return self._folded_words + len(self._words)

    @property
    def next_call(self) -> int:
        return self._folded_calls + len(self._calls) + 1

    def add(
        self,
        words: Iterable[Words] = (),
        calls: Iterable[Call] = (),
        verdict: Verdict | None = None,
        outcome: Outcome | None = None,
    ) -> Iterator[LiveEvent]:
        """The events that more facts add, given as the journal has them: words and calls from the next number on.

        With the verdict all words that count have been given, unless they are not kept any more.
        """
        self._words.extend(words)
        self._calls.extend(calls)
        for position, body in self._events(verdict, outcome):
            if position > self._last:
                self._last = position
                yield LiveEvent((self._run.number, *position), body)

    def _events(self, verdict: Verdict | None, outcome: Outcome | None) -> Iterator[_Placed]:
        if not self._last:
            yield (_STARTED,), self._started(_milliseconds(self._run.accepted.at))
        while self._words and (verdict is None or self._folded_words < verdict.words):
            if verdict is None and self._words[0].closed:
                return  # whether what is behind it counts, the verdict will say
            self._folded_words += 1
            yield from self._heard(self._words.popleft())
        yield from self._called(self._folded_calls + len(self._calls))
        if verdict is not None:
            if self._last < (_SAVE,):
                yield from self._ended(verdict)
            if outcome is not None:
                if isinstance(verdict, Reply):
                    yield (_SAVED,), StepFinishedEvent(step_name=SAVE_CONVERSATION)
                yield (_ENDED,), self._run_ended(verdict, outcome)

    def _heard(self, words: Words) -> Iterator[_Placed]:
        if words.closed or words.attempt < self._attempt:  # a verdict that came second, or an attempt that is over
            return
        yield from self._generating()
        yield from self._called(words.calls)
        yield from self._resumed()
        if words.attempt > self._attempt:
            self._attempt = words.attempt
            yield from self._end_message(is_dead=True)
        if words.text:
            yield from self._say(words.calls, words.attempt, words.text)

    def _say(self, calls: int, attempt: int, text: str, at: int | None = None) -> Iterator[_Placed]:
        if self._said is None:
            self._said = _Said(calls, attempt)
            start = TextMessageStartEvent(message_id=self._message_id(self._said), role="assistant", timestamp=at)
            yield _place(self._said, _MESSAGE_START), start
        self._said.text += text
        content = TextMessageContentEvent(message_id=self._message_id(self._said), delta=text)
        yield _place(self._said, _MESSAGE_CONTENT), content

    def _end_message(self, *, is_dead: bool = False) -> Iterator[_Placed]:
        """End what is being said; what is dead, no client is to keep."""
        said, self._said = self._said, None
        if said is None:
            return
        yield _place(said, _MESSAGE_END), TextMessageEndEvent(message_id=self._message_id(said))
        if is_dead:
            yield _place(said, _SNAPSHOT), MessagesSnapshotEvent(messages=list(self._messages))
        else:
            self._messages.append(AssistantMessage(id=self._message_id(said), content=said.text))

    def _called(self, count: int) -> Iterator[_Placed]:
        """The calls up to that number. A model that has asked for one has said what it says with it."""
        while self._calls and self._folded_calls < count:
            call = self._calls.popleft()
            parent = self._message_id(self._said) if self._said else None
            yield from self._generating()
            yield from self._resumed()
            yield from self._end_message()
            self._folded_calls += 1
            if call.kind == "approval":
                yield from self._paused(pauses_of([call])[0])
            for place, body in enumerate(_events_of_call(call, parent)):
                yield (_MESSAGES, self._folded_calls, 0, place), body

    def _paused(self, pause: Pause) -> Iterator[_Placed]:
        """A person has to decide: the run of AG-UI is over, and the next one goes on."""
        interrupts = [_interrupt(self._run, one, pause) for one in pause.asked]
        self._pause = self._folded_calls
        yield (_MESSAGES, self._pause, 0, 0), StepFinishedEvent(step_name=GENERATE_RESPONSE)
        yield pause_position(self._pause), self._finished(RunFinishedInterruptOutcome(interrupts=interrupts))

    def _resumed(self) -> Iterator[_Placed]:
        """The run continues after its pause, under another id."""
        if self._pause:
            pause, self._pause = self._pause, 0
            self._run_id = f"{self._run.accepted.run_id or self._run.turn_id}.{pause}"
            yield (_MESSAGES, pause, 0, 2), self._started()
            yield (_MESSAGES, pause, 0, 3), StepStartedEvent(step_name=GENERATE_RESPONSE)

    def _started(self, at: int | None = None) -> RunStartedEvent:
        return RunStartedEvent(
            thread_id=self._run.accepted.session_id,
            run_id=self._run_id,
            timestamp=at,
            metadata={"turn_id": self._run.turn_id},
        )

    def _finished(self, outcome: RunFinishedOutcome, **more: Any) -> RunFinishedEvent:
        return RunFinishedEvent(thread_id=self._run.accepted.session_id, run_id=self._run_id, outcome=outcome, **more)

    def _run_ended(self, verdict: Verdict, outcome: Outcome) -> RunFinishedEvent | RunErrorEvent:
        """The last event. The result of a completed run is its `ChatReply`."""
        at = _milliseconds(outcome.at)
        if isinstance(verdict, Failed):
            return RunErrorEvent(message=verdict.message, code=verdict.kind, timestamp=at)
        reply = TurnFacts(self._run, verdict, outcome).reply()
        if reply is None:
            return self._finished(RunFinishedCancelledOutcome(), timestamp=at)
        result = reply.model_dump(mode="json", exclude_none=True)
        return self._finished(RunFinishedSuccessOutcome(), timestamp=at, result=result)

    def _generating(self) -> Iterator[_Placed]:
        if self._last >= (_GENERATE,):
            return
        yield (_FETCH,), StepStartedEvent(step_name=FETCH_CONTEXT)
        yield (_FETCHED,), StepFinishedEvent(step_name=FETCH_CONTEXT)
        yield (_GENERATE,), StepStartedEvent(step_name=GENERATE_RESPONSE)

    def _ended(self, verdict: Verdict) -> Iterator[_Placed]:
        yield from self._resumed()
        match verdict:
            case Reply():
                yield from self._generating()
                yield from self._reply(verdict)
                yield (_GENERATED,), StepFinishedEvent(step_name=GENERATE_RESPONSE)
                yield (_SAVE,), StepStartedEvent(step_name=SAVE_CONVERSATION)
            case Failed():
                if verdict.step != FETCH_CONTEXT:
                    yield from self._generating()
                yield from self._end_message()
            case Cancelled():
                yield from self._end_message()
                if self._last >= (_GENERATE,):
                    yield (_GENERATED,), StepFinishedEvent(step_name=GENERATE_RESPONSE)
            case _:
                assert_never(verdict)

    def _reply(self, reply: Reply) -> Iterator[_Placed]:
        """The rest of the reply, or all of it, if other words were said last."""
        (calls, attempt), said = reply.place, self._said
        if said is not None and not (said.calls == calls and said.attempt == attempt):
            yield from self._end_message(is_dead=True)
        rest = reply.text[len(self._said.text) if self._said else 0 :]
        if rest:
            yield from self._say(calls, attempt, rest, _milliseconds(reply.at))
        yield from self._end_message()

    def _message_id(self, said: _Said) -> str:
        return f"{self._run.turn_id}:{self._run.number}.{said.calls}.{said.attempt}"


def _place(said: _Said, what: int) -> Position:
    return (_MESSAGES, said.calls, 1, said.attempt, len(said.text), what)


def after(events: Iterable[LiveEvent], position: Position, run: TurnRun) -> Iterator[LiveEvent]:
    """Those of `events` after `position`.

    A message that was read in part continues with the rest of its text. One whose words are not kept any more is ended.
    """
    is_first = True
    for event in events:
        if event.position <= position:
            continue
        if is_first and _is_inside(position) and event.position[:_MESSAGE] != position[:_MESSAGE]:
            message_id = f"{run.turn_id}:{position[0]}.{position[2]}.{position[4]}"
            yield LiveEvent((*position[:-1], _MESSAGE_END), TextMessageEndEvent(message_id=message_id))
            yield LiveEvent((*position[:-1], _SNAPSHOT), MessagesSnapshotEvent(messages=[user_message(run)]))
        is_first, body = False, event.body
        if isinstance(body, TextMessageContentEvent) and event.position[:_MESSAGE] == position[:_MESSAGE]:
            read = position[-2] - (event.position[-2] - len(body.delta))
            if read > 0:
                body = body.model_copy(update={"delta": body.delta[read:]})
        yield LiveEvent(event.position, body)


def is_pause(event: LiveEvent) -> bool:
    """Whether a person has to decide before more is said."""
    return isinstance(event.body, RunFinishedEvent) and isinstance(event.body.outcome, RunFinishedInterruptOutcome)


def _is_inside(position: Position) -> bool:
    return len(position) == _MESSAGE + 2 and position[1] == _MESSAGES and position[-1] < _MESSAGE_END


def user_message(run: TurnRun) -> UserMessage:
    """The message of the turn itself."""
    return UserMessage(id=f"{run.turn_id}:user", content=run.accepted.text)


def _events_of_call(call: Call, parent: str | None) -> Iterator[BaseEvent]:
    """What a model asked of tools, or the result of one; the ids are ours, since a model's can be empty or repeat."""
    if call.kind == "model":
        for place, item in enumerate((call.answer or {}).get("output", ())):
            if item.get("type") == "function_call":
                tool_call_id = f"{call.id}-{place}"
                yield ToolCallStartEvent(
                    tool_call_id=tool_call_id, tool_call_name=item["name"], parent_message_id=parent
                )
                yield ToolCallArgsEvent(tool_call_id=tool_call_id, delta=item["arguments"])
                yield ToolCallEndEvent(tool_call_id=tool_call_id)
    elif call.kind == "tool" and call.finished_at is not None:
        content = call.answer if isinstance(call.answer, str) else to_json(call.answer).decode()
        yield ToolCallResultEvent(message_id=f"{call.id}:result", tool_call_id=call.id, content=content)


def pause_position(number: int) -> Position:
    """Where, in its run, the pause is that is the call of that number."""
    return (_MESSAGES, number, 0, 1)


def _interrupt(run: TurnRun, asked: Asked, pause: Pause) -> Interrupt:
    return Interrupt(
        id=f"{run.turn_id}:{asked.call_id}",
        reason="tool_call",
        message=f"The tool {asked.tool} is to be approved",
        tool_call_id=asked.call_id,
        response_schema=_DECISION,
        expires_at=pause.expires_at,
    )


def _milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1_000)
