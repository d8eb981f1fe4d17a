"""A person talks to the page."""

import asyncio
import os

from playwright.async_api import expect

from everturn.testing.model_answers import completion, spoken, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.browser.conftest import Visit
from tests.browser.test_looks import axe_faults
from tests.e2e.conftest import SOURCE, Machine
from tests.e2e.test_recovery import endpoint

__all__ = ["endpoint"]


async def test_a_message_is_answered_and_still_there_after_a_reload(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()

    await visitor.say("My name is Sana and I live in Karachi")
    await visitor.until("completed")
    await visitor.say("Where do I live?")
    await visitor.until("completed", count=2)
    said = await visitor.replies()
    await visitor.page.reload()
    await visitor.until("completed", count=2)

    assert "Karachi" in said[1]
    assert await visitor.replies() == said
    await expect(visitor.timeline.locator(".step.completed")).to_have_count(3)


async def test_conversations_are_found_again_on_another_device(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor, elsewhere = await visit(), await visit()
    await visitor.come()
    await visitor.say("My name is Sana")
    await visitor.until("completed")
    await visitor.page.get_by_role("button", name="New conversation").click()
    await visitor.say("I live in Karachi")
    await visitor.until("completed")

    await elsewhere.come()
    listed = elsewhere.page.get_by_role("navigation", name="Your conversations").get_by_role("button")
    await expect(listed).to_have_count(2)
    await expect(listed.nth(0)).to_contain_text("I live in Karachi")
    await listed.nth(1).click()
    await elsewhere.until("completed")

    assert await elsewhere.messages() == ["My name is Sana"]
    await expect(listed.nth(1)).to_have_attribute("aria-current", "true")


async def test_what_another_user_said_is_not_there(machine: Machine, visit: Visit) -> None:
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("My secret is a song")
    await visitor.until("completed")

    await visitor.page.get_by_role("button", name="Change").click()
    await visitor.page.get_by_label("Your name").fill("omar")
    await visitor.page.get_by_role("button", name="Continue").click()

    await expect(visitor.page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    await expect(visitor.page.get_by_role("navigation", name="Your conversations").get_by_role("button")).to_have_count(
        0
    )
    assert await visitor.messages() == []


async def test_a_reply_is_copied_as_it_was_written(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    endpoint.script(spoken("Two **bold** words"))
    await machine.up()
    visitor = await visit()
    await visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await visitor.come()
    await visitor.say("Show me")
    await visitor.until("completed")

    await visitor.page.get_by_role("button", name="Copy").click()

    await expect(visitor.page.get_by_role("button", name="Copied")).to_be_visible()
    assert await visitor.page.evaluate("navigator.clipboard.readText()") == "Two **bold** words"


async def test_the_steps_that_are_to_come_are_shown(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script(spoken("Once upon ", release, "a time."))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    to_come = visitor.timeline.locator(".step.to-come")
    await expect(to_come).to_have_text(["Recall memory and history", "Write the reply", "Save the conversation"])

    await visitor.say("Tell me")
    await visitor.reads("Once upon")
    await expect(to_come).to_have_text(["Save the conversation"])
    release.set()
    await visitor.until("completed")

    await expect(to_come).to_have_count(0)


async def test_turns_are_listed_by_status_and_opened(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    endpoint.script_for("Second", status(400))
    await machine.up()
    visitor = await visit()
    await visitor.come()
    await visitor.say("First")
    await visitor.until("completed")
    await visitor.page.get_by_role("button", name="New conversation").click()
    await visitor.say("Second")
    await visitor.until("failed")
    await visitor.page.get_by_role("button", name="New conversation").click()

    await visitor.page.get_by_role("tab", name="Turns").click()
    rows = visitor.page.locator("#turn-list button")
    await expect(rows).to_have_count(2)
    await visitor.page.get_by_label("Show", exact=True).select_option("failed")
    await expect(rows).to_have_count(1)
    await rows.click()

    await expect(visitor.timeline.get_by_role("button", name="Run again")).to_be_visible()
    assert await visitor.messages() == ["Second"]


async def test_a_call_is_approved(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    machine.settings["PYTHONPATH"] = f"{SOURCE}{os.pathsep}{SOURCE.parent}"
    endpoint.script(tool_calls(("book", '{"flight": "PK301"}')), completion("It is booked."))
    await machine.up(EVERTURN_ASSISTANT="tests.system.paid_assistant:agent")
    visitor = await visit()
    await visitor.come()

    await visitor.say("Book PK301")
    await visitor.until("waiting")
    await expect(visitor.page.locator("#announcer")).to_have_text("The turn waits for your decision.")
    await expect(visitor.timeline.get_by_label("Arguments")).to_contain_text("PK301")
    assert await axe_faults(visitor.page) == []
    await visitor.press("Approve")
    await visitor.until("completed")

    assert await visitor.replies() == ["It is booked."]
    await expect(visitor.timeline.locator(".call-name")).to_contain_text(["book"])


async def test_a_reply_is_shown_as_markdown_and_cannot_do_anything(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    endpoint.script(
        spoken(
            "# Title\n\n- one\n- two\n\n```\ncode\n```\n\n",
            "<img src=x onerror=alert(1)><script>alert(2)</script>[bad](javascript:alert(3)) ",
            "[good](https://example.org) <form action=/chat/><input name=a></form> ![pixel](https://example.org/p.png)",
        )
    )
    await machine.up()
    visitor = await visit()
    alerts: list[str] = []
    visitor.page.on("dialog", lambda dialog: alerts.append(dialog.message))
    foreign: list[str] = []
    visitor.page.on("request", lambda request: foreign.append(request.url) if "example.org" in request.url else None)
    await visitor.come()
    await visitor.say("Show me")
    await visitor.until("completed")

    reply = visitor.page.locator(".reply")
    await expect(reply.get_by_role("heading", name="Title")).to_be_visible()
    await expect(reply.locator("li")).to_have_text(["one", "two"])
    await expect(reply.locator("pre code")).to_have_text("code")
    await expect(reply.get_by_role("link")).to_have_text(["good", "pixel"])
    await expect(reply.get_by_text("<script>alert(2)</script>")).to_be_visible()
    await expect(reply.locator("img, script, form, input, [onerror]")).to_have_count(0)
    assert (alerts, foreign) == ([], [])
