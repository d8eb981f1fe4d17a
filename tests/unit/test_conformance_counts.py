"""The rule that makes a run of the conformance suite a proof: the same number on each runtime, nothing skipped."""

import pytest

from tests.conformance.counts import Counts, runtime_of


def counts(*, skipped: int = 0, elsewhere: int = 0, **passed: int) -> Counts:
    """Counts with so many tests passed on each runtime."""
    made = Counts()
    made.passed.update(passed)
    made.skipped["dapr"] = skipped
    made.elsewhere = elsewhere
    return made


@pytest.mark.parametrize("in_ci", [False, True])
def test_the_same_number_on_each_runtime_is_a_proof(in_ci: bool) -> None:
    assert counts(embedded=3, dapr=3, postgresql=3, apart=1).problem(in_ci=in_ci) is None


@pytest.mark.parametrize("in_ci", [False, True])
def test_another_number_is_none(in_ci: bool) -> None:
    assert counts(embedded=3, dapr=3, postgresql=2).problem(in_ci=in_ci) == "not the same number passed on each runtime"


def test_what_is_skipped_fails_in_ci_and_is_told_elsewhere() -> None:
    made = counts(embedded=3, skipped=3)

    assert made.problem(in_ci=True) == "3 tests were skipped"
    assert made.problem(in_ci=False) is None
    assert made.summary() == "embedded: 3 passed; dapr: 0 passed, 3 SKIPPED"


def test_one_runtime_alone_is_enough_for_who_asks_for_it_but_not_in_ci() -> None:
    assert counts(embedded=3).problem(in_ci=False) is None
    assert counts(embedded=3).problem(in_ci=True) is not None


def test_a_test_of_no_runtime_has_no_place_in_the_suite() -> None:
    assert counts(embedded=1, dapr=1, postgresql=1, elsewhere=1).problem(in_ci=False) is not None


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("test_x[dapr]", "dapr"), ("test_x[chat-embedded]", "embedded"), ("test_dapr[other]", None), ("test_x", None)],
)
def test_the_runtime_of_a_test_is_among_its_parameters(name: str, runtime: str | None) -> None:
    assert runtime_of(f"tests/conformance/test_any.py::{name}") == runtime
