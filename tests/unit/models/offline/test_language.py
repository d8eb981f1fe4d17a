"""What the offline demo takes for a fact, and what not."""

import pytest

from everturn.models.offline.language import Fact, asked_in, clauses, courtesies, merge, read, render, stated
from tests.unit.work import work_of

NAME, HOME, LIKE, DISLIKE, MY, NOTE = "name", "home", "like", "dislike", "attribute", "note"
ORIGIN, WORK, BEING = "origin", "work", "being"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("My name is Junaid.", NAME, "Junaid"),
        ("hi, my name is José Ñandú, nice to meet you", NAME, "José Ñandú"),
        ("MY NAME IS JUNAID!!", NAME, "JUNAID"),
        ("my name’s O’Brien", NAME, "O’Brien"),
        ("Please call me Ace", NAME, "Ace"),
        ("Can you call me Ace?", NAME, "Ace"),
        ("I live in Karachi, Pakistan", HOME, "Karachi, Pakistan"),
        ("i live in Trinidad and Tobago", HOME, "Trinidad and Tobago"),
        ("I'm living in St. Louis", HOME, "St. Louis"),
        ("I live in Washington D.C.", HOME, "Washington D.C."),
        ("I just moved to Łódź but I miss home", HOME, "Łódź"),
        ("I'm Junaid", NAME, "Junaid"),
        ("I am Ada Lovelace, nice to meet you", NAME, "Ada Lovelace"),
        ("hi, i'm junaid", NAME, "junaid"),
        ("I’m from Lahore!", ORIGIN, "Lahore"),
        ("I come from Trinidad and Tobago", ORIGIN, "Trinidad and Tobago"),
        ("I work as a nurse", WORK, "as a nurse"),
        ("i work at Acme Corp.", WORK, "at Acme Corp"),
        ("I'm a developer", BEING, "a developer"),
        ("I really like cricket and tea, please", LIKE, "cricket and tea"),
        ("I like to swim", LIKE, "to swim"),
        ("I don’t like tea", DISLIKE, "tea"),
        ("I no longer like tea", DISLIKE, "tea"),
        ("remember that the door code is 4711", NOTE, "the door code is 4711"),
        ("Don't forget: the bin goes out on Monday", NOTE, "the bin goes out on Monday"),
        ("Could you remember that the bin goes out on Monday?", NOTE, "the bin goes out on Monday"),
        ("remember that I live in Rome", HOME, "Rome"),
    ],
)
def test_a_statement_is_a_fact_with_its_exact_value(text: str, kind: str, value: str) -> None:
    assert stated(text) == [Fact(kind, value)]


@pytest.mark.parametrize(
    ("text", "subject", "verb", "value"),
    [
        ("My favourite colour is Blue-Green", "favourite colour", "is", "Blue-Green"),
        ("well, my dog's name is Rex", "dog's name", "is", "Rex"),
        ("my children are Ana and Ben", "children", "are", "Ana and Ben"),
        ("Remember my birthday is 5 May", "birthday", "is", "5 May"),
    ],
)
def test_an_attribute_is_kept_by_its_subject(text: str, subject: str, verb: str, value: str) -> None:
    assert stated(text) == [Fact(MY, value, subject, verb)]


@pytest.mark.parametrize(
    "text",
    [
        "What is my name?",
        "is my name Junaid",
        "Do you remember my name?",
        "Is it true that my name is Bob?",
        "Remember me?",
        "remember my name",
        "I remember that my grandmother sang",
        "call me later",
        "my name is not Bob",
        "If I live in Rome, what then",
        "she thinks my name is Bob",
        "I like it",
        "I'm fine",
        "hi, i'm fine",
        "hello, I am happy to be here",
        "I'm a bit tired",
        "I'm so glad",
        "I'm Pakistani",
        "I work hard",
        "I would like to know more",
        "Hello there",
        "",
        "My " * 10_000,
        "!" * 30_000,
    ],
)
def test_what_states_nothing_of_the_user_is_no_fact(text: str) -> None:
    assert stated(text) == []


def test_several_facts_in_one_message_are_all_taken() -> None:
    text = (
        "My name is Ali and I live in Karachi, and I like cricket and tea. My dog is Rex!\nremember that the code is 1"
    )

    assert [(fact.kind, fact.value) for fact in stated(text)] == [
        (NAME, "Ali"),
        (HOME, "Karachi"),
        (LIKE, "cricket and tea"),
        (MY, "Rex"),
        (NOTE, "the code is 1"),
    ]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("I live in Karachi and work as a developer", [(HOME, "Karachi"), (WORK, "as a developer")]),
        ("I'm Ali from Karachi", [(NAME, "Ali"), (ORIGIN, "Karachi")]),
        ("I'm a nurse from Oslo and I like tea", [(BEING, "a nurse"), (ORIGIN, "Oslo"), (LIKE, "tea")]),
        ("My name is Zed and I'm from Bern", [(NAME, "Zed"), (ORIGIN, "Bern")]),
        ("I like tea, but hate coffee", [(LIKE, "tea"), (DISLIKE, "coffee")]),
        ("I work at Acme and my boss is Eve", [(WORK, "at Acme"), (MY, "Eve")]),
    ],
)
def test_two_facts_in_one_sentence_are_both_taken(text: str, facts: list[tuple[str, str]]) -> None:
    assert [(fact.kind, fact.value) for fact in stated(text)] == facts


HOSTILE = (
    *("a. ", "A.", "a ", "!", "...", ". ", "\n", ";", "? ", "’", "Dr. ", "hi ", "from ", "my ", "I like ", "I'm "),
    *("my x is ", "and I ", ", and my a is b", "remember that ", "what is my ", "I live in a and ", "what time in a/"),
)


@pytest.mark.parametrize("part", HOSTILE)
def test_reading_any_text_takes_time_in_proportion_to_its_length(part: str) -> None:
    def reading(chars: int) -> int:
        text = part * (chars // len(part))

        def read_all() -> None:
            merge(stated(text))
            for clause in clauses(text):
                asked_in(clause)
            courtesies(text)
            read(text, "Ann")

        return work_of(read_all)

    assert reading(32_000) <= 2.2 * reading(16_000) + 1_000


def test_the_newer_fact_about_the_same_thing_holds_and_older_ones_survive() -> None:
    facts = stated("My name is Ali. I live in Rome. I like tea. My favourite colour is red. I like jazz.")

    newer = stated("Call me Ace. I moved to Oslo. I don't like tea. My favorite color is blue.")

    assert [fact.value for fact in merge([*facts, *newer])] == ["jazz", "Ace", "Oslo", "tea", "blue"]


@pytest.mark.parametrize(
    "name", ["Junaid", "auth0|123", "James", "Dr. Khan", "O'Neil", "x" * 256, "日本 太郎", "a.b*c"]
)
@pytest.mark.parametrize(
    "message",
    [
        "My name is Zed",
        "I live in Washington D.C.",
        "I live in St. Louis",
        "I like Ünïcode 🏏, tea",
        "I don't like tea",
        "My favourite colour is blue",
        "My kids are Ana and Ben",
        "remember that the code is 4711",
        "I'm from Lahore",
        "I work as a nurse",
        "I'm a nurse",
        "remember to call O’Brien (again)",
    ],
)
def test_a_fact_comes_back_from_its_sentence_as_it_was(name: str, message: str) -> None:
    facts = merge(stated(message))

    assert facts
    assert read(render(facts, name), name) == facts
