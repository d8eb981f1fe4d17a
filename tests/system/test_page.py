"""The page: what browsers get at `/`, its files, and what is remembered of the caller."""

import re

import pytest

from everturn.chat.page import page_for
from tests.system.conftest import System

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_gets_the_page_and_all_others_the_welcome(system: System) -> None:
    page = await system.chat.get("/", headers=BROWSER)
    welcome = await system.chat.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'data-auth="none"' in page.text
    assert welcome.json()["message"].startswith("Welcome to the DACA Chat Service!")
    assert {"accept"} <= {name.strip() for name in welcome.headers["vary"].lower().split(",")}
    assert (await system.memory.get("/", headers=BROWSER)).json()["message"].startswith("Welcome")


async def test_the_page_runs_nothing_but_its_own_files(system: System) -> None:
    page = await system.chat.get("/", headers=BROWSER)

    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert named
    assert {path for path in named if (await system.chat.get(path)).status_code != 200} == set()


@pytest.mark.parametrize("path", sorted(page_for("none").paths))
async def test_a_file_is_sent_once_and_then_only_looked_up(system: System, path: str) -> None:
    first = await system.chat.get(path)
    again = await system.chat.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})

    assert (first.status_code, again.status_code) == (200, 304)
    assert first.content
    assert not again.content
    assert first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/page/", "/page/__init__.py", "/page/../app.py", "/page/vendor", "/page/missing.js"])
async def test_nothing_else_is_a_file_of_the_page(system: System, path: str) -> None:
    assert (await system.chat.get(path)).status_code == 404


async def test_each_file_from_elsewhere_has_its_licence(system: System) -> None:
    names = {path.rpartition("/")[2].partition(".") for path in page_for("none").paths if "/vendor/" in path}

    scripts = {name for name, _, ending in names if ending.endswith("js")}
    assert {"marked", "purify"} == scripts == {name for name, _, ending in names if ending == "LICENSE"}


async def test_what_is_remembered_of_a_user_comes_through_the_chat_service(system: System) -> None:
    memory = {"name": "Ann", "preferred_style": "formal", "user_summary": "Ann lives in Lahore."}
    await system.memory.post("/memories/a%2Fb/initialize", json=memory)

    found = await system.chat.get("/memory", params={"user_id": "a/b"})
    unknown = await system.chat.get("/memory", params={"user_id": "bob"})

    assert found.json() == {**memory, "user_id": "a/b"}
    assert unknown.json()["user_summary"] == "bob is a new user."
    assert (await system.chat.get("/memory")).status_code == 422


async def test_a_turn_shows_its_text_only_if_content_is_asked_for(system: System) -> None:
    turn_id = await system.accept("Where do I live?")
    await system.ended(turn_id)

    plain = (await system.chat.get(f"/turns/{turn_id}")).json()
    whole = (await system.chat.get(f"/turns/{turn_id}", params={"include": "content"})).json()
    listed = (await system.chat.get("/turns", params={"user_id": "ann", "include": "content"})).json()["turns"]

    assert "text" not in plain
    assert whole["text"] == "Where do I live?"
    assert listed == [whole]
