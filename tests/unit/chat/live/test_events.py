"""The events of a run, from its facts."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from ag_ui.core import Event, MessagesSnapshotEvent, RunErrorEvent, RunFinishedEvent, TextMessageContentEvent
from pydantic import TypeAdapter

from everturn.chat.calls import Call
from everturn.chat.facts import Accepted, Cancelled, Failed, Outcome, Reply, TurnFacts, TurnRun, Verdict
from everturn.chat.live.events import EventFold, LiveEvent, after, position_of
from everturn.chat.streamed_words import Words
from everturn.contracts.chat import TurnStatus

AT = "2026-01-31T12:00:00.123Z"
RUN = TurnRun("t", 0, Accepted(user_id="ann", session_id="s", text="Hi", at=AT))
REPLY = Reply(text="hello Ann", model="scripted", at=AT)
FAILURE = Failed(step="generate_response", attempts=2, kind="http_401", message="no", at=AT)
REPLY_TYPES = [
    "RUN_STARTED",
    *["STEP_STARTED", "STEP_FINISHED", "STEP_STARTED"],
    *["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"],
    *["STEP_FINISHED", "STEP_STARTED", "STEP_FINISHED"],
    "RUN_FINISHED",
]


def told(verdict: Verdict | None, status: TurnStatus | None = None, run: TurnRun = RUN) -> list[LiveEvent]:
    outcome = Outcome(status=status, at=AT, sequence=1) if status else None
    return events_of(TurnFacts(run, verdict, outcome))


def events_of(facts: TurnFacts, words: Sequence[Words] = (), calls: Sequence[Call] = ()) -> list[LiveEvent]:
    return list(EventFold(facts.run).add(words, calls, facts.verdict, facts.outcome))


def types(events: list[LiveEvent]) -> list[str]:
    return [event.body.type.value for event in events]


def test_a_reply_is_told_from_its_start_to_its_end() -> None:
    events = told(REPLY, TurnStatus.COMPLETED)

    assert types(events) == REPLY_TYPES
    assert isinstance(events[-1].body, RunFinishedEvent)
    assert events[-1].body.outcome is not None
    assert events[-1].body.outcome.type == "success"
    assert (events[-1].body.result or {})["reply"] == "hello Ann"


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (REPLY, TurnStatus.COMPLETED),
        (FAILURE, TurnStatus.FAILED),
        (Cancelled(at=AT), TurnStatus.CANCELLED),
    ],
)
def test_more_facts_only_add_events_at_the_end(verdict: Verdict, status: TurnStatus) -> None:
    whole = told(verdict, status)

    for fewer in (told(None), told(verdict)):
        assert fewer == whole[: len(fewer)]
    assert all(before.position < behind.position for before, behind in pairwise(whole))


def test_a_failed_run_ends_with_its_fault() -> None:
    events = told(FAILURE, TurnStatus.FAILED)

    assert types(events)[-2:] == ["STEP_STARTED", "RUN_ERROR"]
    assert isinstance(events[-1].body, RunErrorEvent)
    assert (events[-1].body.code, events[-1].body.message) == ("http_401", "no")


def test_a_cancelled_run_finishes_and_says_so() -> None:
    events = told(Cancelled(at=AT), TurnStatus.CANCELLED)

    assert types(events) == ["RUN_STARTED", "RUN_FINISHED"]
    assert isinstance(events[-1].body, RunFinishedEvent)
    assert events[-1].body.outcome is not None
    assert events[-1].body.outcome.type == "cancelled"


def test_every_run_has_ids_of_its_own_behind_those_of_the_runs_before() -> None:
    first = told(FAILURE, TurnStatus.FAILED)
    second = told(REPLY, TurnStatus.COMPLETED, TurnRun("t", 1, RUN.accepted))

    assert first[-1].position < second[0].position


def test_a_stream_goes_on_behind_any_of_its_events() -> None:
    whole = told(REPLY, TurnStatus.COMPLETED)

    for count, event in enumerate(whole, start=1):
        assert position_of(event.id) == event.position
        assert list(after(whole, event.position, RUN)) == whole[count:]


def test_a_message_that_was_read_in_part_goes_on_with_the_rest_of_its_text() -> None:
    content = told(REPLY)[5]

    (rest,) = after([content], (*content.position[:-2], 6, content.position[-1]), RUN)

    assert rest.id == content.id
    assert rest.body.delta == "Ann"  # type: ignore[attr-defined]


def test_an_event_on_the_wire_has_its_id_and_is_of_the_protocol() -> None:
    for event in told(REPLY, TurnStatus.COMPLETED):
        first, second, *rest = event.encoded.decode().split("\n")

        assert first == f"id: {event.id}"
        assert rest == ["", ""]
        TypeAdapter(Event).validate_json(second.removeprefix("data: "))


@pytest.mark.parametrize("event_id", ["x", "1.x", "1..2", ".", "-1", "١", "1" * 101])
def test_what_is_no_id_has_no_position(event_id: str) -> None:
    assert position_of(event_id) is None


# Streamed runs

STREAMED = TurnRun("t", 0, Accepted(user_id="ann", session_id="s", text="Hi", at=AT, streamed=True))
BEGUN = Words(attempt=0)
ENDED = Outcome(status=TurnStatus.COMPLETED, at=AT, sequence=1)


def piece(text: str, offset: int = 0, attempt: int = 0, calls: int = 0) -> Words:
    return Words(attempt=attempt, calls=calls, offset=offset, text=text)


def streamed(words: list[Words], verdict: Verdict | None, calls: Sequence[Call] = ()) -> list[LiveEvent]:
    """The events of a run whose facts came one by one; all who come later read the same."""
    outcome = ENDED if verdict else None
    fold = EventFold(STREAMED)
    events: list[LiveEvent] = []
    for each in words:
        first = [call for call in calls[fold.next_call - 1 :] if fold.next_call <= each.calls]
        events += fold.add([each], first)
    events += fold.add(calls=calls[fold.next_call - 1 :])
    events += fold.add(verdict=verdict, outcome=outcome)
    assert events == events_of(TurnFacts(STREAMED, verdict, outcome), words, calls)
    assert all(before.position < behind_it.position for before, behind_it in pairwise(events))
    return events


def text_of(events: list[LiveEvent]) -> str:
    return "".join(event.body.delta for event in events if isinstance(event.body, TextMessageContentEvent))


def said(text: str, place: tuple[int, int], words: int) -> Reply:
    return Reply(text=text, model="scripted", at=AT, place=place, words=words)


def test_words_are_told_as_they_come_and_the_reply_adds_the_rest() -> None:
    events = streamed([BEGUN, piece("One "), piece("two ", 4)], said("One two three", (0, 0), 3))

    assert text_of(events) == "One two three"
    assert types(events).count("TEXT_MESSAGE_START") == 1


def test_words_behind_the_close_of_the_verdict_do_not_count() -> None:
    late = [Words(closed=True), Words(attempt=1), piece("late", attempt=1)]

    events = streamed([BEGUN, piece("One"), *late], said("One", (0, 0), 2))

    assert text_of(events) == "One"


def test_what_comes_behind_a_close_waits_for_the_verdict() -> None:
    crashed = [BEGUN, piece("One"), Words(closed=True), Words(attempt=1), piece("Two", attempt=1)]

    assert text_of(streamed(crashed, None)) == "One"
    assert text_of(streamed(crashed, said("Two more", (0, 1), 5))) == "OneTwo more"


def test_an_attempt_that_is_over_is_not_heard_any_more() -> None:
    words = [BEGUN, piece("I was"), Words(attempt=1), piece(" goi", 5), piece("Here", attempt=1)]

    events = streamed(words, said("Here", (0, 1), 5))

    assert text_of(events) == "I wasHere"
    assert "MESSAGES_SNAPSHOT" in types(events)


def test_a_reply_that_nobody_heard_is_told_behind_a_snapshot() -> None:
    events = streamed([BEGUN, piece("I was")], said("Something else", (0, 1), 2))

    begin = types(events).index("TEXT_MESSAGE_END")
    assert types(events)[begin : begin + 3] == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    assert text_of(events[begin:]) == "Something else"


ASKED = Call(
    id="c",
    kind="model",
    name="scripted",
    agent="a",
    started_at=AT,
    finished_at=AT,
    answer={"output": [{"type": "function_call", "call_id": "x", "name": "now", "arguments": "{}"}]},
)
ANSWERED = Call(id="c-0", kind="tool", name="now", agent="a", started_at=AT, finished_at=AT, answer={"hour": 3})


def test_calls_are_told_between_the_words_before_and_behind_them() -> None:
    words = [BEGUN, piece("Let me look."), piece("Late", calls=2)]

    events = streamed(words, said("Late", (2, 0), 3), [ASKED, ANSWERED])

    call = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    message = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert types(events)[4:14] == [*message, *call, *message]


def test_a_call_that_was_made_is_kept_when_the_attempt_behind_it_dies() -> None:
    words = [BEGUN, piece("Let me look."), piece("La", calls=2), Words(attempt=1, calls=2), piece("Late", 0, 1, 2)]

    events = streamed(words, said("Late", (2, 1), 5), [ASKED, ANSWERED])

    (snapshot,) = [event.body for event in events if isinstance(event.body, MessagesSnapshotEvent)]
    contents = [message.content for message in snapshot.messages]
    assert contents[:2] == ["Hi", "Let me look."]
    assert "La" not in contents


def test_a_plain_turn_with_calls_tells_them_before_its_reply() -> None:
    events = streamed([], said("Late", (2, 0), -1), [ASKED, ANSWERED])

    assert types(events)[4:8] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert text_of(events) == "Late"


def test_a_stream_goes_on_in_the_bare_reply_once_its_words_are_gone() -> None:
    words = [BEGUN, piece("One "), piece("two ", 4)]
    reply = said("One two three", (0, 0), 3)
    seen, bare = streamed(words, reply), events_of(TurnFacts(STREAMED, reply, ENDED))

    for count, event in enumerate(seen, start=1):
        rest = list(after(bare, event.position, STREAMED))
        assert text_of(seen[:count]) + text_of(rest) == "One two three"
        ids = [each.id for each in seen]
        assert all(each.id in ids for each in rest if not isinstance(each.body, TextMessageContentEvent))


def test_a_dead_message_is_ended_also_once_its_words_are_gone() -> None:
    words = [BEGUN, piece("I was"), Words(attempt=1), piece("Here", attempt=1)]
    reply = said("Here I am", (0, 1), 4)
    seen, bare = streamed(words, reply), events_of(TurnFacts(STREAMED, reply, ENDED))
    dead = next(event for event in seen if isinstance(event.body, TextMessageContentEvent))

    rest = list(after(bare, dead.position, STREAMED))

    place = seen.index(dead)
    assert [event.id for event in rest[:2]] == [event.id for event in seen[place + 1 : place + 3]]
    assert types(rest)[:3] == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START"]
    assert text_of(rest) == "Here I am"
