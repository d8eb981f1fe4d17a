"""Sessions: the queue of a conversation, pure."""

import pytest

from everturn.chat.facts import Accepted, TurnRun
from everturn.chat.session import (
    MAX_QUEUED_TURNS,
    MAX_RECENT_TURNS,
    MAX_TAKEN_TURNS,
    QueuedTurn,
    Session,
    check_not_taken,
    check_owner,
    parse_session,
    session_key,
    stored_session,
)
from everturn.errors import TerminalError, TransientError


def run(turn_id: str, number: int = 0, overlap: str = "") -> TurnRun:
    accepted = Accepted(user_id="ann", session_id="s", text="hi", at="2026-01-01T12:00:00.000Z", overlap=overlap)
    return TurnRun(turn_id, number, accepted)


def queued(*turn_ids: str) -> Session:
    """Turns that wait; `turn+` wants to be merged, `turn!` interrupts."""
    session = Session("ann")
    for turn_id in turn_ids:
        session, _ = session.appended(run(turn_id[:1], overlap={"+": "merge", "!": "interrupt"}.get(turn_id[1:], "")))
    return session


def taken(session: Session, turn_id: str = "a") -> list[str]:
    return [place.turn_id for place in session.taking(run(turn_id)).taken_by(run(turn_id))]


def test_turns_get_the_numbers_of_their_acceptance() -> None:
    session = queued("a", "b")

    changed, place = session.appended(run("c"))

    assert place == QueuedTurn("c", 3, 0)
    assert [waiting.turn_id for waiting in changed.queue] == ["a", "b", "c"]


def test_a_number_is_never_given_twice() -> None:
    session = queued("a").without(run("a"), completed=False)

    _, place = session.appended(run("b"))

    assert place.sequence == 2


def test_a_full_queue_takes_no_more_and_says_when_to_try_again() -> None:
    session = queued(*(chr(0x4E00 + n) for n in range(MAX_QUEUED_TURNS)))

    with pytest.raises(TransientError) as refused:
        session.appended(run("one-too-many"))

    assert refused.value.kind == "overloaded"
    assert refused.value.retry_after_s


def test_the_next_turn_is_the_head_when_the_head_ends() -> None:
    session = queued("a", "b")

    ended = session.without(run("a"), completed=True)

    assert ended.head == QueuedTurn("b", 2, 0)


def test_a_completed_turn_stays_in_sight_and_a_failed_one_does_not() -> None:
    session = queued("a", "b")

    ended = session.without(run("a"), completed=True).without(run("b"), completed=False)

    assert [place.turn_id for place in ended.recent] == ["a"]


def test_ending_a_turn_twice_changes_nothing() -> None:
    once = queued("a", "b").without(run("a"), completed=True)

    twice = once.without(run("a"), completed=True)

    assert twice is once


def test_what_the_memory_service_has_leaves_sight() -> None:
    session = queued("a", "b", "c").without(run("a"), completed=True).without(run("b"), completed=True)

    ended = session.without(run("c"), completed=True, stored_up_to=1)

    assert [place.turn_id for place in ended.recent] == ["b", "c"]


def test_only_so_many_turns_stay_in_sight() -> None:
    session = Session("ann")
    for n in range(MAX_RECENT_TURNS + 5):
        session, _ = session.appended(run(f"t{n}"))
        session = session.without(run(f"t{n}"), completed=True)

    assert len(session.recent) == MAX_RECENT_TURNS
    assert session.recent[-1].turn_id == f"t{MAX_RECENT_TURNS + 4}"


def test_a_session_is_its_first_users() -> None:
    session = queued("a")

    check_owner(session, "s", "ann")
    with pytest.raises(TerminalError) as refused:
        check_owner(session, "s", "bob")

    assert refused.value.kind == "forbidden"


def test_a_paused_turn_is_marked_in_its_place() -> None:
    session = queued("a", "b")

    paused = session.with_paused(run("b"), paused=True)

    assert [place.paused for place in paused.queue] == [False, True]
    assert paused.with_paused(run("b"), paused=False) == session


def test_the_late_end_of_a_run_leaves_the_place_of_its_rerun() -> None:
    session, _ = Session("ann").appended(run("a", number=1))

    assert session.without(run("a"), completed=False) is session
    assert session.without(run("a", number=1), completed=False).queue == []


def test_a_session_of_the_release_before_is_read_and_any_run_of_its_turns_is_meant() -> None:
    stored = {"user_id": "ann", "next_sequence": 4, "queue": [{"turn_id": "b", "sequence": 3, "paused": True}]}

    session = parse_session({**stored, "recent": [{"turn_id": "a", "sequence": 1}]})

    assert session.place_of(run("b", number=2)) == QueuedTurn("b", 3, None, paused=True)
    assert session.without(run("b", number=2), completed=True).recent[-1] == QueuedTurn("b", 3, 2)
    assert parse_session({"user_id": "ann"}) == Session("ann")


def test_fields_of_a_newer_release_outlive_a_change() -> None:
    turn = {"turn_id": "a", "sequence": 1, "run": 0, "colour": "red"}
    newer = {"user_id": "ann", "version": 2, "next_sequence": 2, "queue": [turn], "merging": {"a": "b"}}

    changed, _ = parse_session(newer).with_paused(run("a"), paused=True).appended(run("b"))

    stored = stored_session(changed)
    assert (stored["version"], stored["merging"]) == (2, {"a": "b"})
    assert stored["queue"] == [{**turn, "paused": True}, {"turn_id": "b", "sequence": 2, "run": 0}]


def test_ids_cannot_break_out_of_their_key() -> None:
    assert session_key("a||b") == "session:a%7C%7Cb"
    assert session_key("a%7C%7Cb") == "session:a%257C%257Cb"


def test_a_turn_that_steps_aside_keeps_its_number_until_it_comes_back_at_the_end() -> None:
    session = queued("a", "b").aside(run("a"))

    back = session.returned(run("a"))

    assert [place.turn_id for place in session.queue] == ["b"]
    assert session.place_of(run("a")) == QueuedTurn("a", 1, 0)
    assert back.queue == [QueuedTurn("b", 2, 0), QueuedTurn("a", 3, 0)]
    assert back.next_sequence == 4
    assert (session.aside(run("a")), back.returned(run("a"))) == (session, back)
    assert parse_session(stored_session(session)) == session


def test_a_turn_that_ends_aside_leaves() -> None:
    session = queued("a", "b").aside(run("a")).without(run("a"), completed=False)

    assert (session.waiting, [place.turn_id for place in session.queue]) == ([], ["b"])


def test_the_head_takes_up_what_is_right_behind_it_and_wants_that() -> None:
    assert taken(queued("a", "b+", "c+", "d", "e+")) == ["b", "c"]
    assert taken(queued("a", "b", "c+")) == []
    assert taken(queued("a", "b+").with_paused(run("b"), paused=True)) == []


def test_a_turn_takes_up_only_so_many_and_the_next_one_the_rest() -> None:
    session = queued(*(f"{chr(ord('a') + number)}+" for number in range(MAX_TAKEN_TURNS + 3)))
    up = session.taking(run("a"))

    ids = [place.turn_id for place in up.taken_by(run("a"))]
    rest = up.without(run("a"), completed=True, merged=ids)

    assert len(ids) == MAX_TAKEN_TURNS
    assert up.taking(run("a")) is up
    assert [place.turn_id for place in rest.queue] == ["l", "m"]
    assert taken(rest, "l") == ["m"]


def test_who_is_not_the_head_or_is_interrupted_takes_up_nothing() -> None:
    assert taken(queued("a", "b", "c+"), "b") == []
    assert taken(queued("a", "b+").without(run("a"), completed=False)) == []
    assert taken(queued("a", "b+", "c!")) == []


def test_what_was_taken_up_is_not_taken_apart_and_what_was_taken_apart_not_up() -> None:
    session = queued("a", "b+")
    up, apart = session.taking(run("a")), session.apart(run("b"))

    assert up.apart(run("b")) is up
    assert up.taking(run("a")) is up
    assert up.taker_of(up.queue[1]) == "a"
    assert taken(apart) == []
    with pytest.raises(TerminalError) as refused:
        check_not_taken(up, run("b"))
    assert refused.value.kind == "merged"
    check_not_taken(apart, run("b"))


def test_a_turn_leaves_with_those_that_its_reply_answers_and_lets_go_of_the_others() -> None:
    session = queued("a", "b+", "c+").taking(run("a"))

    ended = session.without(run("a"), completed=True, merged=["b"])

    assert [(place.turn_id, place.into) for place in ended.queue] == [("c", "")]
    assert [place.turn_id for place in ended.recent] == ["a"]


def test_a_late_end_leaves_the_rerun_of_a_merged_turn() -> None:
    session, _ = queued("a").appended(run("b", number=1))

    assert [place.turn_id for place in session.without(run("a"), completed=True, merged=["b"]).queue] == ["b"]


def test_what_a_turn_has_taken_up_steps_aside_and_comes_back_with_it() -> None:
    aside = queued("a", "b+", "c").taking(run("a")).aside(run("a"))

    back = aside.returned(run("a"))

    assert [place.turn_id for place in aside.queue] == ["c"]
    assert [(place.turn_id, place.sequence) for place in back.queue] == [("c", 3), ("a", 4), ("b", 5)]
    assert aside.taker_of(aside.waiting[1]) == "a"
    assert [place.turn_id for place in back.taken_by(run("a"))] == ["b"]


def test_an_interruption_is_of_all_before_the_last_one() -> None:
    assert [place.turn_id for place in queued("a", "b!", "c", "d!", "e").interrupted] == ["a", "b", "c"]
    assert queued("a", "b").interrupted == queued("a!", "b").interrupted == []
