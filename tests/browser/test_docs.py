"""`/docs` shows the routes of a service, without any other server."""

import pytest
from playwright.async_api import Browser, expect

from tests.browser.conftest import Visitor
from tests.e2e.conftest import Machine


@pytest.mark.parametrize(("service", "route"), [("chat", "/chat/"), ("memory", "/memories/{user_id}")])
async def test_docs_shows_the_routes_and_asks_nobody_else(
    machine: Machine, browser: Browser, service: str, route: str
) -> None:
    await machine.up()
    url = machine.chat_url if service == "chat" else machine.memory_url
    page = await (await browser.new_context()).new_page()
    visitor, asked = Visitor(page, url), set[str]()
    page.on("request", lambda request: asked.add(request.url))

    await page.goto(f"{url}/docs")
    await page.locator(".opblock-summary", has_text=route).first.click()

    await expect(page.locator(".opblock.is-open .opblock-section").first).to_be_visible()
    await expect(page.locator(".opblock.is-open").get_by_role("button", name="Try it out")).to_be_visible()
    assert {address for address in asked if not address.startswith((f"{url}/", "data:"))} == set()
    assert visitor.faults == []
