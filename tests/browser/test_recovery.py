"""Whatever goes away meanwhile, the page goes on and shows the same words."""

import asyncio
import re

from playwright.async_api import Route, expect

from everturn.testing.model_answers import Held, completion, spoken, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.browser.conftest import Visit
from tests.e2e.conftest import Client, Machine
from tests.e2e.test_recovery import endpoint

__all__ = ["endpoint"]
FAST = {"EVERTURN_FETCH_ATTEMPTS": "3", "EVERTURN_GENERATE_ATTEMPTS": "2", "EVERTURN_GENERATE_FIRST_DELAY_S": "0.1"}


async def test_a_reload_in_mid_answer_goes_on(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script(spoken("Once upon ", release, "a time."))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("Tell me")
    await visitor.reads("Once upon")

    await visitor.page.reload()
    await visitor.reads("Once upon")
    release.set()
    await visitor.until("completed")

    assert await visitor.messages() == ["Tell me"]
    assert await visitor.replies() == ["Once upon a time."]


async def test_a_kill_in_mid_answer_and_a_start_go_on(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    endpoint.script(spoken("Once upon ", asyncio.Event(), "never given"))
    first = await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("Tell me")
    await visitor.reads("Once upon")

    await first.kill()
    await expect(visitor.page.get_by_text("Connecting again")).to_be_visible()
    await visitor.reads("Once upon")
    await machine.up()
    await visitor.until("completed")

    assert await visitor.replies() == ["hello"], "the words of the dead attempt are there as well"
    await expect(visitor.page.get_by_text("Connecting again")).to_be_hidden()


async def test_a_message_that_could_not_be_sent_is_sent_once_later(
    machine: Machine, client: Client, visit: Visit, endpoint: ModelEndpoint
) -> None:
    first = await machine.up()
    visitor = await visit()
    await visitor.come()
    await first.kill()
    await visitor.say("Are you there?")
    await visitor.until("sending")
    await expect(visitor.page.get_by_text("Connecting again")).to_be_visible()

    await machine.up()
    await visitor.until("completed")
    await visitor.page.reload()
    await visitor.until("completed")

    assert await visitor.messages() == ["Are you there?"]
    assert len(endpoint.requests_about("Are you there?")) == 1


async def test_a_message_outlives_a_reload_before_it_could_be_sent(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.page.route("**/chat/", lambda route: route.abort("connectionrefused"))
    await visitor.say("Do not forget me")
    await expect(visitor.page.get_by_text("Connecting again")).to_be_visible()
    await visitor.page.reload()
    await visitor.until("sending")

    await visitor.page.unroute("**/chat/")
    await visitor.until("completed")

    assert await visitor.messages() == ["Do not forget me"]


async def test_a_lost_answer_to_a_message_does_not_send_it_twice(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()
    lost: list[int] = []

    async def lose_first(route: Route) -> None:
        if lost:
            await route.continue_()
            return
        lost.append((await route.fetch()).status)
        await route.abort("connectionreset")

    await visitor.page.route("**/chat/", lose_first)
    await visitor.say("Only once")
    await visitor.until("completed")

    assert lost == [202]
    assert await visitor.replies() == ["hello"]
    assert len(endpoint.requests_about("Only once")) == 1


async def test_while_memory_is_away_the_page_says_so(machine: Machine, client: Client, visit: Visit) -> None:
    await machine.up("--faults", **FAST)
    visitor = await visit()
    await visitor.come()
    await client.switch("memory", away=True)

    await visitor.say("Hello")
    await visitor.until("completed")
    await expect(visitor.page.get_by_text("Answered without memory and history", exact=True)).to_be_visible()
    await expect(visitor.timeline.get_by_text("attempt 3")).to_be_visible()
    await visitor.page.get_by_role("tab", name="Memory").click()
    await expect(visitor.page.get_by_text("Memory is out of reach at the moment")).to_be_visible()
    await client.switch("memory", away=False)
    await visitor.page.get_by_role("button", name="Look again").click()
    await expect(visitor.page.get_by_text("sana is a new user.")).to_be_visible()
    await visitor.say("Hello again")
    await visitor.until("completed", count=2)

    await expect(visitor.page.locator(".turn").nth(1).get_by_text("Answered without")).to_have_count(0)


async def test_the_time_of_the_next_try_is_shown(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    endpoint.script(status(503, retry_after="300"))
    await machine.up()
    visitor = await visit()
    await visitor.come()

    await visitor.say("Hello")

    await expect(visitor.timeline.get_by_text("Next try in 4 min")).to_be_visible()
    await expect(visitor.timeline.locator(".step.retrying .step-error")).to_have_text(re.compile("503"))


async def test_a_turn_is_held_let_go_and_cancelled(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("too late")))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("First")
    await endpoint.asked(1)
    await visitor.say("Second")

    await visitor.until("queued")
    await visitor.press("Pause")
    await visitor.until("paused")
    await visitor.press("Resume")
    await visitor.until("queued")
    await visitor.page.locator(".turn").nth(0).get_by_role("button", name="Cancel").click()
    await visitor.until("cancelled")
    release.set()
    await visitor.until("completed")

    assert await visitor.replies() == ["", "hello"]


async def test_a_failed_turn_is_run_again(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    endpoint.script(status(400))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("Hello")
    await visitor.until("failed")
    await expect(visitor.page.locator(".turn .failure")).to_be_visible()

    await visitor.press("Run again")
    await visitor.until("completed")

    assert await visitor.replies() == ["hello"]
    await expect(visitor.page.locator(".turn .failure")).to_have_count(0)


async def test_a_message_that_is_not_taken_yet_says_why(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("first")))
    await machine.up(EVERTURN_MAX_OPEN_TURNS_PER_USER="1")
    visitor = await visit()
    await visitor.come()
    await visitor.say("First")
    await endpoint.asked(1)

    await visitor.say("Second")
    await expect(visitor.page.locator(".turn[data-status=sending] .working")).to_contain_text("have not ended")
    await expect(visitor.page.locator(".turn[data-status=sending] time")).to_be_visible()
    await expect(visitor.page.locator("#connection")).to_be_empty()
    release.set()
    await visitor.until("completed", count=2)

    assert await visitor.replies() == ["first", "hello"]


async def test_a_message_that_would_wait_for_hours_is_sent_again_by_hand(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.method)
        problem = {"detail": "All tokens of today are used up"}
        await route.fulfill(status=429, json=problem, headers={"retry-after": "9000"})

    await visitor.page.route("**/chat/", refuse)
    await visitor.say("Not today")
    await visitor.until("refused")
    await expect(visitor.page.locator(".failure")).to_have_text(
        re.compile("^All tokens of today are used up · Can be sent again in 2 h")
    )
    await expect(visitor.page.locator("#connection")).to_be_empty()
    await visitor.page.reload()
    await visitor.until("refused")
    assert asked == ["POST"] * 2

    await visitor.page.unroute("**/chat/")
    await visitor.page.get_by_role("button", name="Send again").click()
    await visitor.until("completed")
    await visitor.page.reload()
    await visitor.until("completed")

    assert await visitor.messages() == ["Not today"]
    assert len(endpoint.requests_about("Not today")) == 1


async def test_what_is_refused_is_said_and_not_sent_again(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    await machine.up(EVERTURN_MAX_TEXT_CHARS="10")
    visitor = await visit()
    await visitor.come()

    await visitor.say("Longer than ten characters")
    await visitor.until("refused")
    await expect(visitor.page.get_by_text("at most 10 are taken")).to_be_visible()
    await visitor.page.reload()

    await expect(visitor.page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    await visitor.until("refused", count=0)
