"""The matrix of routes and callers on the embedded runtime, and that no route is missing in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from pydantic import SecretStr
from starlette.routing import BaseRoute, Mount

from everturn.cli.up import add_fault_routes
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider
from tests.matrix import (
    CHAT,
    FAULTS,
    SERVICE,
    Callers,
    Site,
    ask,
    callers_by_header,
    callers_by_token,
    check_others,
    check_who_may,
    ids_of_ann,
    is_stored,
    routes_of,
)
from tests.system.conftest import System, running


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture(params=["header", "jwt"])
def callers(request: pytest.FixtureRequest, provider: IdentityProvider) -> Callers:
    return callers_by_header() if request.param == "header" else callers_by_token(provider)


@pytest.fixture
async def signed(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, provider: IdentityProvider, callers: Callers
) -> AsyncIterator[System]:
    given: dict[str, Any] = {"auth": "header", "proxy_token": SecretStr("proxy-secret")}
    if "authorization" in callers.ann:
        file = tmp_path / "jwks.json"
        await asyncio.to_thread(file.write_bytes, provider.jwks())
        given = {"auth": "jwt", "jwt_jwks": str(file), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    async with AsyncExitStack() as stack:
        given["operator_token"] = SecretStr("operator-secret")
        system = await stack.enter_async_context(running(tmp_path / "data", endpoint, clock, **given))
        add_fault_routes(system.composed.memory.app.router, system.faults)
        yield system


def site_of(system: System) -> Site:
    return Site(system.chat, system.memory, faults=FAULTS)


def without_a_row(system: System) -> set[str]:
    """The routes of both services that have no row, and the rows that have no route."""
    chat, memory = system.composed.chat.app, system.composed.memory.app
    of_chat, of_memory = ({row.route for row in rows} for rows in (CHAT, (*SERVICE, *FAULTS)))
    return (routes_of(chat) ^ of_chat) | (routes_of(memory) ^ of_memory)


async def test_every_route_has_a_row_and_every_row_a_route(system: System) -> None:
    add_fault_routes(system.composed.memory.app.router, system.faults)

    assert without_a_row(system) == set()


async def nothing() -> None:
    """Answers a route that no row knows."""


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (APIRoute("/shown", nothing, methods=["PUT"]), "PUT /shown"),
        (APIRoute("/hidden", nothing, include_in_schema=False), "GET /hidden"),
        (APIRoute("/turns", nothing, methods=["DELETE"]), "DELETE /turns"),
        (APIRoute("/docs", nothing, methods=["POST"]), "POST /docs"),
        (APIWebSocketRoute("/socket", nothing), "ANY /socket"),
        (Mount("/mounted", FastAPI()), "ANY /mounted"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_a_route_that_nobody_gave_a_row_is_noticed(system: System, route: BaseRoute, name: str) -> None:
    add_fault_routes(system.composed.memory.app.router, system.faults)

    system.composed.memory.app.router.routes.append(route)

    assert name in without_a_row(system)


async def test_each_caller_gets_what_the_row_of_a_route_says(
    signed: System, callers: Callers, endpoint: ModelEndpoint
) -> None:
    site = site_of(signed)
    for who, headers in (("ann", callers.ann), ("operator", callers.operator), ("sidecar", signed.of_the_sidecar)):
        await check_who_may(site, who, headers, await ids_of_ann(site, callers, endpoint))


async def test_others_and_strangers_get_nothing_and_change_nothing(
    signed: System, callers: Callers, endpoint: ModelEndpoint
) -> None:
    site = site_of(signed)
    ids = await ids_of_ann(site, callers, endpoint)
    await signed.until(lambda: is_stored(site, callers))

    await check_others(site, callers, ids)


async def test_another_users_turn_is_unknown_in_the_same_words_on_every_route(
    signed: System, callers: Callers, endpoint: ModelEndpoint
) -> None:
    ids = await ids_of_ann(site_of(signed), callers, endpoint)
    unknown = dict.fromkeys(ids, "unknown")
    for row in CHAT:
        if "{turn_id}" in row.route:
            refused, missing = [await ask(signed.chat, row, of, callers.bob) for of in (ids, unknown)]

            asked = next(turn_id for turn_id in ids.values() if turn_id in row.at(ids))
            assert refused.text.replace(asked, "unknown") == missing.text, row.route
