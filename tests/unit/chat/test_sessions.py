"""Sessions: the queue of a conversation, pure."""

import pytest

from everturn.chat.sessions import (
    MAX_QUEUED_TURNS,
    MAX_RECENT_TURNS,
    Place,
    Session,
    check_owner,
    save_session,
    session_key,
)
from everturn.errors import TerminalError, TransientError


def queued(*turn_ids: str) -> Session:
    session = Session(user_id="ann")
    for turn_id in turn_ids:
        session, _ = session.appended(turn_id)
    return session


def test_turns_get_the_numbers_of_their_acceptance() -> None:
    session = queued("a", "b")

    changed, place = session.appended("c")

    assert place == Place(turn_id="c", sequence=3)
    assert [waiting.turn_id for waiting in changed.queue] == ["a", "b", "c"]


def test_a_number_is_never_given_twice() -> None:
    session = queued("a").without("a", completed=False)

    _, place = session.appended("b")

    assert place.sequence == 2


def test_a_full_queue_takes_no_more_and_says_when_to_try_again() -> None:
    session = queued(*(f"t{n}" for n in range(MAX_QUEUED_TURNS)))

    with pytest.raises(TransientError) as refused:
        session.appended("one-too-many")

    assert refused.value.kind == "overloaded"
    assert refused.value.retry_after_s


def test_the_next_turn_is_the_head_when_the_head_ends() -> None:
    session = queued("a", "b")

    ended = session.without("a", completed=True)

    assert ended.head == Place(turn_id="b", sequence=2)


def test_a_completed_turn_stays_in_sight_and_a_failed_one_does_not() -> None:
    session = queued("a", "b")

    ended = session.without("a", completed=True).without("b", completed=False)

    assert [place.turn_id for place in ended.recent] == ["a"]


def test_ending_a_turn_twice_changes_nothing() -> None:
    once = queued("a", "b").without("a", completed=True)

    twice = once.without("a", completed=True)

    assert twice is once


def test_what_the_memory_service_has_leaves_sight() -> None:
    session = queued("a", "b", "c").without("a", completed=True).without("b", completed=True)

    ended = session.without("c", completed=True, stored_up_to=1)

    assert [place.turn_id for place in ended.recent] == ["b", "c"]


def test_only_so_many_turns_stay_in_sight() -> None:
    session = Session(user_id="ann")
    for n in range(MAX_RECENT_TURNS + 5):
        session, _ = session.appended(f"t{n}")
        session = session.without(f"t{n}", completed=True)

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

    paused = session.with_paused("b", paused=True)

    assert [place.paused for place in paused.queue] == [False, True]
    assert paused.with_paused("b", paused=False) == session


def test_a_new_session_is_written_first_and_a_known_one_under_its_etag() -> None:
    session = queued("a")

    assert save_session("s", session, None).first_write
    assert save_session("s", session, "7").etag == "7"
    assert not save_session("s", session, "7").first_write


def test_ids_cannot_break_out_of_their_key() -> None:
    assert session_key("a||b") == "session:a%7C%7Cb"
    assert session_key("a%7C%7Cb") == "session:a%257C%257Cb"
