from everturn.chat.context import MAX_ENTRIES, fit
from everturn.chat.facts import PastEntry
from everturn.models.texts import CUT_MARK, excerpt


def turn(question: str, answer: str) -> list[PastEntry]:
    return [
        PastEntry(role="user", content=question, timestamp="t1"),
        PastEntry(role="assistant", content=answer, timestamp="t2"),
    ]


def test_what_fits_stays_whole_and_in_order() -> None:
    entries = turn("one", "two") + turn("three", "four")

    assert fit(entries, tokens=100) == entries


def test_the_oldest_turns_are_left_out_whole() -> None:
    old, middle, last = turn("a" * 20, "b" * 20), turn("c" * 20, "d" * 20), turn("e" * 20, "f" * 20)

    assert fit(old + middle + last, tokens=20) == middle + last


def test_a_turn_that_fits_by_a_character_less_is_left_out() -> None:
    old, last = turn("a" * 20, "b" * 21), turn("e" * 20, "f" * 20)

    assert fit(old + last, tokens=20) == last


def test_an_older_turn_does_not_jump_over_one_that_is_too_large() -> None:
    small, large, last = turn("a", "b"), turn("c" * 100, "d"), turn("e", "f")

    assert fit(small + large + last, tokens=10) == last


def test_the_last_turn_is_cut_in_the_middle_where_it_alone_is_larger() -> None:
    question, answer = fit(turn("start" + "x" * 10_000 + "end", "short"), tokens=25)

    assert question.content.startswith("start")
    assert question.content.endswith("end")
    assert CUT_MARK in question.content
    assert answer.content == "short"
    assert len(question.content) + len(answer.content) == 100


def test_a_last_turn_with_two_long_entries_keeps_both_within_the_window() -> None:
    question, answer = fit(turn("q" * 1_000, "a" * 1_000), tokens=25)

    assert (len(question.content), len(answer.content)) == (50, 50)


def test_however_short_they_are_no_more_entries_are_kept_than_an_agent_can_take() -> None:
    alone = [PastEntry(role="assistant", content="", timestamp="t")] * 3_000

    assert fit(turn("a", "") * 3_000, tokens=8_000) == turn("a", "") * (MAX_ENTRIES // 2)
    assert len(fit(alone, tokens=8_000)) == MAX_ENTRIES


def test_no_history_is_no_window() -> None:
    assert fit([], tokens=10) == []


def test_an_excerpt_of_what_fits_is_the_text_itself() -> None:
    assert excerpt("abc", 3) == "abc"


def test_an_excerpt_is_never_longer_than_asked() -> None:
    assert [len(excerpt("x" * 100, chars)) for chars in range(100)] == list(range(100))


def test_a_turn_with_merged_messages_is_left_out_whole() -> None:
    merged = [turn("a" * 20, "")[0], *turn("b" * 20, "c" * 20)]
    last = turn("d" * 20, "e" * 20)

    assert fit(merged + last, tokens=25) == merged + last
    assert fit(merged + last, tokens=24) == last
