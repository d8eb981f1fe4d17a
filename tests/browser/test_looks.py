"""Everybody can use the page: with a keyboard, a screen reader, a phone, in the dark."""

import re
from collections.abc import Awaitable, Callable

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Visit, Visitor
from tests.e2e.conftest import Client, Machine

# The others never end.
_FADED_IN = """Promise.all(
    document.getAnimations()
        .filter((one) => one.effect.getComputedTiming().iterations !== Infinity)
        .map((one) => one.finished.catch(() => null)))"""


async def axe_faults(page: Page) -> list[str]:
    """What axe finds, as rules with the elements, once nothing fades in any more: half of it is hard to read."""
    await page.evaluate(_FADED_IN)
    results = await Axe().run(page)
    return [
        f"{violation['impact']}: {violation['id']}: {[node['html'] for node in violation['nodes']]}"
        for violation in results.response["violations"]
    ]


async def talk(visitor: Visitor) -> None:
    await visitor.come()
    await visitor.say("My name is Sana")
    await visitor.until("completed")


async def see_memory(visitor: Visitor) -> None:
    await talk(visitor)
    await visitor.page.get_by_role("tab", name="Memory").click()
    await expect(visitor.page.get_by_text("sana is a new user.")).to_be_visible()


async def see_turns(visitor: Visitor) -> None:
    await talk(visitor)
    await visitor.page.get_by_role("tab", name="Turns").click()
    await expect(visitor.page.locator("#turn-list button")).to_have_count(1)


async def look(visitor: Visitor) -> None:
    await visitor.page.goto(visitor.url)
    await expect(visitor.page.get_by_label("Your name")).to_be_visible()


@pytest.mark.parametrize("do", [look, talk, see_memory, see_turns])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(
    machine: Machine, visit: Visit, do: Callable[[Visitor], Awaitable[None]], scheme: str
) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")

    await do(visitor)

    assert await axe_faults(visitor.page) == []


async def test_all_is_there_on_a_phone(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.page.emulate_media(reduced_motion="reduce")
    await visitor.page.set_viewport_size({"width": 360, "height": 640})
    await talk(visitor)

    await expect(visitor.timeline).to_be_hidden()
    await visitor.page.get_by_role("button", name="Details of the turn").click()
    await expect(visitor.timeline.get_by_text("Write the reply")).to_be_visible()
    assert await axe_faults(visitor.page) == []
    await visitor.page.keyboard.press("Escape")
    await expect(visitor.timeline).to_be_hidden()
    await visitor.page.get_by_role("button", name="Conversations").click()
    await expect(visitor.page.get_by_role("button", name="New conversation")).to_be_visible()
    assert await axe_faults(visitor.page) == []
    await visitor.page.get_by_role("button", name="New conversation").click()

    await expect(visitor.page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    width = await visitor.page.evaluate("document.documentElement.scrollWidth")
    assert width == 360


async def test_all_can_be_done_with_the_keyboard(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()
    press = visitor.page.keyboard.press

    await expect(visitor.page.get_by_label("Message", exact=True)).to_be_focused()
    await visitor.page.keyboard.type("Hello")
    await press("Shift+Enter")
    await visitor.page.keyboard.type("there")
    await press("Enter")
    await visitor.until("completed")
    await visitor.page.get_by_role("tab", name="Timeline").focus()
    await press("ArrowRight")

    await expect(visitor.page.get_by_role("tab", name="Memory")).to_be_focused()
    await expect(visitor.page.get_by_role("tabpanel", name="Memory")).to_be_visible()
    assert await visitor.messages() == ["Hello\nthere"]


async def test_a_screen_reader_is_told_the_reply_once(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()

    await talk(visitor)

    await expect(visitor.page.locator("#announcer")).to_have_text(f"Reply: {(await visitor.replies())[0]}")


async def test_a_screen_reader_is_told_a_reply_that_was_there_at_the_first_look(
    machine: Machine, visit: Visit, client: Client
) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        turn_id = (await answer.json())["turn_id"]

        async def has_ended() -> bool:
            return bool((await client.turn(turn_id))["status"] == "completed")

        await client.until(has_ended)
        await route.fulfill(response=answer)

    await visitor.page.route("**/chat/", hold)
    await visitor.say("My name is Sana")

    await expect(visitor.page.locator("#announcer")).to_have_text(re.compile("^Reply: "))
