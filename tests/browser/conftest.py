"""The page in a real Chromium, against a real `everturn up`."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.e2e.conftest import PATIENCE_S, Machine, client, machine

__all__ = ["client", "machine"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=PATIENCE_S * 500)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        _do_without()
    async with async_playwright() as playwright:
        # Without a sandbox of its own it runs in containers as well; it opens nothing but our page.
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


def _do_without() -> NoReturn:
    reason = "the page cannot be tried: there is no Chromium; `make page` installs it where apt can"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_S * 1_000)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)

    def _note(self, text: str) -> None:
        if "Failed to load resource" not in text:  # what a server that is away, or refuses, looks like
            self.faults.append(text)

    async def come(self, user: str = "sana") -> None:
        """Open the page for the first time and say who it is."""
        await self.page.goto(self.url)
        await self.page.get_by_label("Your name").fill(user)
        await self.page.get_by_role("button", name="Continue").click()
        await expect(self.page.get_by_role("heading", name="What is on your mind?")).to_be_visible()

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def until(self, status: str, *, count: int = 1) -> None:
        await expect(self.page.locator(f".turn[data-status={status}]")).to_have_count(count)

    @property
    def timeline(self) -> Locator:
        return self.page.get_by_role("tabpanel", name="Timeline")

    async def press(self, name: str) -> None:
        """A button of the timeline."""
        await self.timeline.get_by_role("button", name=name).click()

    async def reads(self, text: str) -> None:
        """Exactly that is there of the last reply."""
        await expect(self.page.locator(".reply").last).to_have_text(text)

    async def messages(self) -> list[str]:
        return [
            text.removeprefix("You said:").lstrip() for text in await self.page.locator(".message").all_inner_texts()
        ]

    async def replies(self) -> list[str]:
        return [text.strip() for text in await self.page.locator(".reply").all_inner_texts()]


Visit = Callable[[], Awaitable[Visitor]]


@pytest.fixture
async def visit(machine: Machine, browser: Browser) -> AsyncIterator[Visit]:
    """A visitor with a browser of their own. At the end, no page may have had an error."""
    visitors: list[Visitor] = []

    async def come() -> Visitor:
        context = await browser.new_context(viewport={"width": 1360, "height": 860})
        visitors.append(Visitor(await context.new_page(), machine.chat_url))
        return visitors[-1]

    yield come
    assert [fault for visitor in visitors for fault in visitor.faults] == []
