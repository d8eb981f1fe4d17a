"""The Prefer header."""

import pytest

from everturn.web.prefer import Preferences, preferences_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Preferences()),
        (["respond-async"], Preferences(respond_async=True)),
        (["Respond-Async, wait=10"], Preferences(respond_async=True, wait_s=10)),
        (["respond-async", "wait = 5"], Preferences(respond_async=True, wait_s=5)),
        (['wait="7"; a=b'], Preferences(wait_s=7)),
        (["wait=3, wait=9"], Preferences(wait_s=3)),
        (["wait=0"], Preferences(wait_s=0)),
    ],
)
async def test_preferences_are_read(header: list[str] | None, expected: Preferences) -> None:
    assert await preferences_of(header) == expected


@pytest.mark.parametrize("header", ["wait=soon", "wait=-1", "wait", "return=minimal", ",,;", "wait=\u0663"])
async def test_what_cannot_be_read_is_ignored(header: str) -> None:
    assert await preferences_of([header]) == Preferences()
