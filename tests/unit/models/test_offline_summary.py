"""The offline summary, asked through `summarise` like any other model, and read back by the demo."""

import pytest

from everturn.models.build import build_summary_model
from everturn.models.offline.facts import merge
from everturn.models.offline.statements import stated
from everturn.models.offline.summaries import read, render
from everturn.models.summary import SummaryTurn, summarise
from everturn.settings import Settings


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "EVERTURN_MODEL_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


async def after(previous: str, *messages: str, name: str = "Junaid") -> str:
    turns = [SummaryTurn(message, "I live in a box.") for message in messages]
    return await summarise(build_summary_model(Settings()), name, previous, turns)


async def test_the_default_disappears_once_there_is_a_fact() -> None:
    assert await after("Junaid is a new user.", "Hi, I live in Karachi") == "Junaid lives in Karachi."


async def test_without_a_fact_the_summary_stays() -> None:
    assert await after("Junaid is a new user.", "Hello!") == "Junaid is a new user."


async def test_older_facts_survive() -> None:
    assert await after("Junaid likes tea.", "I live in Oslo", "Thanks") == "Junaid likes tea.\nJunaid lives in Oslo."


async def test_the_newest_of_a_kind_wins() -> None:
    assert await after("Junaid lives in Rome.", "I live in Oslo", "I moved to Bern") == "Junaid lives in Bern."


async def test_what_a_person_wrote_survives_as_it_stands() -> None:
    summary = await after("Works as a developer. His sister lives in Lahore.", "I like tea")

    assert summary.splitlines() == ["Works as a developer.", "His sister lives in Lahore.", "Junaid likes tea."]


async def test_a_fact_survives_a_hundred_turns() -> None:
    summary = "Junaid is a new user."
    summary = await after(summary, "My dog is Rex")
    for number in range(100):
        summary = await after(summary, f"Tell me story {number}")

    assert summary == "Junaid's dog is Rex."


async def test_beyond_2000_characters_the_oldest_facts_go() -> None:
    summary = ""
    for number in range(200):
        summary = await after(summary, f"I like thing number {number}")

    assert len(summary) <= 2_000
    assert summary.endswith("thing number 199.")
    assert "number 1." not in summary


async def test_one_endless_fact_does_not_push_the_others_out() -> None:
    summary = await after("Junaid likes tea.", "remember that " + "x" * 480)

    assert summary.startswith("Junaid likes tea.\n")


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
        "remember to call O’Brien (again)",
    ],
)
def test_a_fact_comes_back_from_its_sentence_as_it_was(name: str, message: str) -> None:
    facts = merge(stated(message))

    assert facts
    assert read(render(facts, name), name) == facts
