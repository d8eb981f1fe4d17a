"""What a prompt has of a conversation: the memory service's window, and the turns whose events are still on the way."""

from everturn.chat.context import prompt_history, stored_up_to, unstored, with_recent
from everturn.chat.facts import Context, PastEntry, Window
from everturn.chat.session import QueuedTurn, Session


def session(*sequences: int) -> Session:
    recent = [QueuedTurn(f"t{n}", n) for n in sequences]
    return Session(user_id="ann", next_sequence=max(sequences, default=0) + 2, recent=recent)


def window(*sequences: int, truncated: bool = False) -> Window:
    entries = [PastEntry(role="user", content=f"m{n}", timestamp="", turn_id=f"t{n}", sequence=n) for n in sequences]
    return Window(history=entries, truncated=truncated)


def sequences(places: list[QueuedTurn]) -> list[int]:
    return [place.sequence for place in places]


def test_turns_that_the_memory_service_lacks_are_missing() -> None:
    assert sequences(unstored(session(1, 2, 3), window(2))) == [1, 3]


def test_what_a_truncated_window_left_out_is_not_missing() -> None:
    assert sequences(unstored(session(1, 2, 3), window(2, truncated=True))) == [3]


def test_everything_is_missing_without_a_window() -> None:
    assert sequences(unstored(session(1, 2), window())) == [1, 2]


def test_turns_are_stored_up_to_the_first_that_is_missing() -> None:
    known = session(1, 2, 3, 4)

    assert stored_up_to(known, unstored(known, window(1, 2, 4))) == 2
    assert stored_up_to(known, unstored(known, window(2))) == 0
    assert stored_up_to(known, unstored(known, window(1, 2, 3, 4))) == 4


def test_what_fell_out_of_the_window_counts_as_stored() -> None:
    known = session(1, 2, 3)

    assert stored_up_to(known, unstored(known, window(2, 3, truncated=True))) == 3


def test_a_context_names_the_turns_that_its_window_lacks() -> None:
    context = with_recent(Context(history=window(1, 2)), session(1, 2, 4))

    assert (context.recent, context.stored_up_to) == ([("t4", 0, 4)], 2)


def test_a_history_has_the_newer_turns_at_their_places() -> None:
    newer = [PastEntry(role="user", content="m2", timestamp="", turn_id="t2", sequence=2)]

    history = prompt_history(Context(history=window(1, 3)), newer, [], tokens=100)

    assert [entry.content for entry in history] == ["m1", "m2", "m3"]
