"""What a browser says of the page behind a request, and which pages may call."""

import pytest

from everturn.dapr.origins import AllowedPages

PAGES = AllowedPages(("everturn.example", "*.lan"), ("http://localhost:3000",))
OWN = {"host": "127.0.0.1:8010"}
LINK = {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8010",
        "localhost.:8010",
        "app.localhost",
        "127.0.0.1:8010",
        "[::1]:8010",
        "192.168.1.7",
        "everturn.example:8010",
        "Everturn.Example",
        "chat.lan",
    ],
)
def test_a_name_or_address_of_this_server_may_be_asked(host: str) -> None:
    assert PAGES.refusal("GET", {"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:8010",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "sub.everturn.example",
        "lan",
        "evillan",
        "[::1",
        "",
        "127.0.0.1@evil.example",
    ],
)
def test_another_name_is_refused_as_anybody_may_let_it_mean_this_machine(host: str) -> None:
    refusal = PAGES.refusal("GET", {"host": host})

    assert refusal is not None
    assert "EVERTURN_ALLOWED_HOSTS" in refusal


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:8010", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_programs_own_pages_and_allowed_ones_may_call(headers: dict[str, str]) -> None:
    assert PAGES.refusal("POST", {**OWN, **headers}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3001"},
        {"origin": "http://localhost:3000.evil.example"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    ],
)
def test_a_foreign_page_may_not_call(headers: dict[str, str]) -> None:
    assert PAGES.refusal("GET", {**OWN, **headers}) is not None


def test_a_link_may_be_followed_but_no_form_sent() -> None:
    refusals = [
        PAGES.refusal("GET", LINK),
        PAGES.refusal("GET", {**LINK, "sec-fetch-dest": "iframe"}),
        PAGES.refusal("POST", LINK),
    ]

    assert [refusal is None for refusal in refusals] == [True, False, False]


def test_a_star_allows_every_name_and_every_page() -> None:
    everybody = AllowedPages(("*",), ("*",))

    assert everybody.refusal("POST", {"host": "any.example", "origin": "https://evil.example"}) is None


def test_a_refusal_does_not_repeat_a_long_value() -> None:
    refusal = PAGES.refusal("GET", {"host": "a" * 10_000})

    assert refusal is not None
    assert len(refusal) < 300
