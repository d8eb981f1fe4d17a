"""What the offline demo takes for a fact, and what not."""

import pytest

from everturn.models.offline.facts import Fact, FactKind, merge
from everturn.models.offline.statements import stated

NAME, HOME, LIKE, DISLIKE, MY, NOTE = (
    FactKind.NAME,
    FactKind.HOME,
    FactKind.LIKE,
    FactKind.DISLIKE,
    FactKind.ATTRIBUTE,
    FactKind.NOTE,
)


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
        ("I live in Karachi and work as a developer", HOME, "Karachi"),
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
def test_a_statement_is_a_fact_with_its_exact_value(text: str, kind: FactKind, value: str) -> None:
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


def test_the_newer_fact_about_the_same_thing_holds_and_older_ones_survive() -> None:
    facts = stated("My name is Ali. I live in Rome. I like tea. My favourite colour is red. I like jazz.")

    newer = stated("Call me Ace. I moved to Oslo. I don't like tea. My favorite color is blue.")

    assert [fact.value for fact in merge([*facts, *newer])] == ["jazz", "Ace", "Oslo", "tea", "blue"]
