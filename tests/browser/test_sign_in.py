"""Who signs in: by a token, or by a proxy in front. (By a name, if nobody does: every other test.)"""

import asyncio
import json
import os
import re

from playwright.async_api import Route, expect

from everturn.testing.model_answers import completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.browser.conftest import Visit
from tests.browser.test_looks import axe_faults
from tests.e2e.conftest import SOURCE, Machine
from tests.e2e.test_recovery import endpoint
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider

__all__ = ["endpoint"]


async def test_a_token_signs_in_and_stays_in_its_tab(machine: Machine, visit: Visit) -> None:
    provider = IdentityProvider()
    (machine.folder / "keys.json").write_bytes(provider.jwks())
    await machine.up(
        EVERTURN_AUTH="jwt",
        EVERTURN_JWT_JWKS=str(machine.folder / "keys.json"),
        EVERTURN_JWT_ISSUER=ISSUER,
        EVERTURN_JWT_AUDIENCE=AUDIENCE,
    )
    visitor = await visit()
    page = visitor.page
    await page.goto(visitor.url)
    await page.get_by_label("Token").fill("no token at all")
    await page.keyboard.press("Enter")
    await expect(page.locator("#sign-in-why")).to_have_text(re.compile("^Nobody is signed in: "))

    answer = asyncio.Event()

    async def hold(route: Route) -> None:
        await answer.wait()
        await route.continue_()

    await page.route("**/caller", hold)
    await page.get_by_label("Token").fill(provider.token("ann"))
    await page.keyboard.press("Enter")
    await visitor.say("My name is Ann")  # before the page knows who that is
    answer.set()
    await visitor.until("completed")
    await page.reload()
    await visitor.until("completed")

    await expect(page.locator("#who strong")).to_have_text("ann")
    assert await visitor.messages() == ["My name is Ann"]
    other_tab = await page.context.new_page()
    await other_tab.goto(visitor.url)
    await expect(other_tab.get_by_label("Token")).to_be_visible()


async def test_a_proxy_that_signs_in_asks_for_nothing(machine: Machine, visit: Visit) -> None:
    await machine.up(EVERTURN_AUTH="header", EVERTURN_PROXY_TOKEN="proxy-secret")
    visitor, stranger = await visit(), await visit()
    signed_in = {"x-forwarded-user": "ann", "x-everturn-proxy-token": "proxy-secret"}
    await visitor.page.context.set_extra_http_headers(signed_in)
    await visitor.page.goto(visitor.url)
    await visitor.say("Hello")
    await visitor.until("completed")
    await stranger.page.goto(stranger.url)

    await expect(visitor.page.locator("#who strong")).to_have_text("ann")
    await expect(stranger.page.locator("#connection")).to_contain_text("Nobody is signed in")
    await expect(stranger.page.get_by_role("dialog")).to_have_count(0)
    await stranger.page.set_viewport_size({"width": 390, "height": 800})
    await expect(stranger.page.get_by_role("button", name="Details of the turn")).to_be_in_viewport(ratio=1)
    await expect(stranger.page.get_by_role("heading", name="New conversation")).to_be_in_viewport(ratio=1)


async def test_a_message_is_sent_only_as_the_user_who_wrote_it(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    await machine.up(EVERTURN_AUTH="header", EVERTURN_PROXY_TOKEN="proxy-secret")
    visitor = await visit()
    page = visitor.page

    async def come(user: str) -> None:
        signed_in = {"x-forwarded-user": user, "x-everturn-proxy-token": "proxy-secret"}
        await page.context.set_extra_http_headers(signed_in)
        await page.goto("about:blank")
        await page.goto(visitor.url)
        await expect(page.locator("#who strong")).to_have_text(user)

    await come("ann")
    await page.route("**/chat/", lambda route: route.abort("connectionrefused"))
    await visitor.say("A secret of Ann")
    await expect(page.get_by_text("Connecting again")).to_be_visible()
    await page.unroute("**/chat/")
    await come("bob")
    await visitor.say("I am Bob")
    await visitor.until("completed")

    assert await visitor.messages() == ["I am Bob"]
    assert endpoint.requests_about("A secret of Ann") == []
    await come("ann")
    await visitor.until("completed")
    assert await visitor.messages() == ["A secret of Ann"]


async def test_a_message_on_its_way_is_kept_if_somebody_else_signs_in(
    machine: Machine, visit: Visit, endpoint: ModelEndpoint
) -> None:
    provider = IdentityProvider()
    (machine.folder / "keys.json").write_bytes(provider.jwks())
    await machine.up(
        EVERTURN_AUTH="jwt",
        EVERTURN_JWT_JWKS=str(machine.folder / "keys.json"),
        EVERTURN_JWT_ISSUER=ISSUER,
        EVERTURN_JWT_AUDIENCE=AUDIENCE,
    )
    visitor = await visit()
    page = visitor.page
    await page.goto(visitor.url)
    await page.get_by_label("Token").fill(provider.token("ann"))
    await page.keyboard.press("Enter")
    await expect(page.locator("#who strong")).to_have_text("ann")
    await page.route("**/chat/", lambda route: route.fulfill(status=401, json={"detail": "The token has expired."}))
    await visitor.say("A secret of Ann")
    await expect(page.locator("#sign-in-why")).to_have_text("The token has expired.")
    await page.unroute("**/chat/")

    async with page.expect_response("**/chat/") as refused:
        await page.get_by_label("Token").fill(provider.token("bob"))
        await page.keyboard.press("Enter")
    await expect(page.locator("#who strong")).to_have_text("bob")

    assert (await refused.value).status == 403
    await visitor.say("I am Bob")  # goes behind the other one
    await visitor.until("completed")
    assert endpoint.requests_about("A secret of Ann") == []
    kept = await page.evaluate("sessionStorage['everturn.outbox']")
    assert [(each["user"], each["text"]) for each in json.loads(kept)] == [("ann", "A secret of Ann")]


async def test_an_operator_signs_in_beside_the_proxy(machine: Machine, visit: Visit) -> None:
    await machine.up(
        EVERTURN_AUTH="header", EVERTURN_PROXY_TOKEN="proxy-secret", EVERTURN_OPERATOR_TOKEN="of-the-operator"
    )
    ann, operator = await visit(), await visit()
    signed_in = {"x-forwarded-user": "ann", "x-everturn-proxy-token": "proxy-secret"}
    await ann.page.context.set_extra_http_headers(signed_in)
    await ann.page.goto(ann.url)
    await ann.say("Hello")
    await ann.until("completed")

    page = operator.page
    await page.goto(operator.url)
    await page.get_by_role("button", name="Sign in as an operator").click()
    await page.get_by_label("Operator's token").fill("thought better of")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Sign in as an operator").click()
    await page.get_by_label("Operator's token").fill("a guess")
    await page.keyboard.press("Enter")
    await expect(page.locator("#sign-in-why")).to_have_text("That is not the operator's token.")
    await page.get_by_label("Operator's token").fill("of-the-operator")
    await page.keyboard.press("Enter")
    await page.get_by_label("User").fill("ann")
    await page.get_by_role("button", name="Continue").click()
    await page.locator("#turn-list button").click()

    await expect(page.locator("#who strong")).to_have_text("ann")
    await expect(page.locator("#connection")).to_be_empty()
    assert await operator.messages() == ["Hello"]
    assert await axe_faults(page) == []


async def test_an_operator_looks_at_a_user_and_decides(machine: Machine, visit: Visit, endpoint: ModelEndpoint) -> None:
    provider = IdentityProvider()
    (machine.folder / "keys.json").write_bytes(provider.jwks())
    machine.settings["PYTHONPATH"] = f"{SOURCE}{os.pathsep}{SOURCE.parent}"
    endpoint.script(tool_calls(("book", '{"flight": "PK301"}')), completion("It is booked."))
    await machine.up(
        EVERTURN_AUTH="jwt",
        EVERTURN_JWT_JWKS=str(machine.folder / "keys.json"),
        EVERTURN_JWT_ISSUER=ISSUER,
        EVERTURN_JWT_AUDIENCE=AUDIENCE,
        EVERTURN_OPERATOR_TOKEN="of-the-operator",
        EVERTURN_ASSISTANT="tests.system.paid_assistant:agent",
    )
    ann, operator = await visit(), await visit()
    await ann.page.goto(ann.url)
    await ann.page.get_by_label("Token").fill(provider.token("ann"))
    await ann.page.keyboard.press("Enter")
    await ann.say("Book PK301")
    await ann.until("waiting")

    page = operator.page
    await page.goto(operator.url)
    await page.get_by_label("Token").fill("of-the-operator")
    await page.keyboard.press("Enter")
    await page.get_by_label("User").fill("ann")
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Show", exact=True).select_option("waiting")
    await page.locator("#turn-list button").click()
    await expect(operator.timeline.get_by_label("Arguments")).to_contain_text("PK301")
    assert await axe_faults(page) == []
    await operator.press("Approve")
    await operator.until("completed")
    await ann.until("completed")

    await expect(page.get_by_label("Message", exact=True)).to_be_hidden()
    await expect(page.locator("#who strong")).to_have_text("ann")
    assert await ann.replies() == ["It is booked."]
