"""One conversation in two places: what is said in one of them is seen in the other while it is said."""

import asyncio
import re

from playwright.async_api import expect

from everturn.testing.model_answers import completion, spoken, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.browser.conftest import Visit, Visitor
from tests.e2e.conftest import Machine
from tests.e2e.test_recovery import endpoint

__all__ = ["endpoint"]


async def test_a_second_tab_hears_the_turn_of_the_first(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    release, again = asyncio.Event(), asyncio.Event()
    endpoint.script(completion("hello"), spoken("Once upon ", release, "a time."), spoken("And ", again, "then."))
    await machine.up()
    first = await visit()
    await first.come()
    await first.say("Hello")
    await first.until("completed")
    second = Visitor(await first.page.context.new_page(), first.page.url)
    await second.page.goto(first.page.url)
    await second.until("completed")

    await first.say("Tell me")
    await second.reads("Once upon")
    await expect(second.timeline.get_by_text("Write the reply")).to_be_visible()
    release.set()
    await second.until("completed", count=2)
    await second.say("Go on")
    await first.reads("And")
    again.set()
    await first.until("completed", count=3)
    await second.until("completed", count=3)

    assert await first.messages() == await second.messages() == ["Hello", "Tell me", "Go on"]
    assert await first.replies() == await second.replies() == ["hello", "Once upon a time.", "And then."]
    assert second.faults == []


async def test_another_device_hears_a_turn_that_is_run_again(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    endpoint.script(status(400), completion("hello"))
    await machine.up()
    here, elsewhere = await visit(), await visit()
    await here.come()
    await here.say("Hello")
    await here.until("failed")
    await elsewhere.come()
    await elsewhere.page.goto(here.page.url)
    await elsewhere.page.reload()
    await elsewhere.until("failed")

    await here.press("Run again")
    await elsewhere.until("completed")

    assert await elsewhere.replies() == ["hello"]


async def test_a_tab_behind_others_holds_no_stream(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script(spoken("Once upon ", release, "a time."))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    streams: list[str] = []
    visitor.page.on("request", lambda request: streams.append(request.url) if "/events" in request.url else None)

    await hide(visitor, hidden=True)
    await visitor.say("Tell me")
    await expect(visitor.timeline.get_by_text("Write the reply")).to_be_visible()
    await visitor.until("running")
    await endpoint.asked(1)
    async with visitor.page.expect_request(re.compile("/turns/[^/]+$")):
        pass  # it looks at the turn again
    assert streams == []
    await hide(visitor, hidden=False)
    await visitor.reads("Once upon")
    release.set()
    await visitor.until("completed")

    assert await visitor.replies() == ["Once upon a time."]
    assert len(streams) == 1


async def hide(visitor: Visitor, *, hidden: bool) -> None:
    """Let the page think that it is behind another tab, or before it again: without a window all tabs are in front."""
    said = "true" if hidden else "false"
    await visitor.page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {said}}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
