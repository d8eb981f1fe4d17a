"""The matrix of routes and callers on every runtime: two users share a system and nothing else."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio

from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.conftest import make_system
from tests.conformance.counts import RUNTIMES
from tests.matrix import Site, callers_by_header, check_others, check_who_may, ids_of_ann, is_stored

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP_TOKEN = "token-of-the-app"


@dataclass(frozen=True, slots=True)
class Signed:
    """A system behind a proxy, and a client of it."""

    site: Site
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=RUNTIMES)
async def signed(
    request: pytest.FixtureRequest, endpoint: ModelEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Signed]:
    settings = {
        "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
        "EVERTURN_MODEL_NAME": "scripted",
        "EVERTURN_AUTH": "header",
        "EVERTURN_PROXY_TOKEN": "proxy-secret",
        "EVERTURN_OPERATOR_TOKEN": "operator-secret",
        "APP_API_TOKEN": APP_TOKEN,
    }
    system = make_system(request.param, tmp_path_factory.mktemp(f"signed-{request.param}"), settings)
    try:
        system.start()
        async with (
            httpx2.AsyncClient(base_url=system.chat_url, timeout=PATIENCE_S, trust_env=False) as chat,
            httpx2.AsyncClient(base_url=system.memory_url, timeout=PATIENCE_S, trust_env=False) as memory,
        ):
            yield Signed(Site(chat, memory, is_closed=True), Client(chat, system, "signed"))
    finally:
        await system.stop()


async def test_each_route_gives_each_caller_what_is_theirs(signed: Signed, endpoint: ModelEndpoint) -> None:
    site, callers = signed.site, callers_by_header()
    ids = await ids_of_ann(site, callers, endpoint)
    await signed.client.until(lambda: is_stored(site, callers))

    await check_others(site, callers, ids)
    for who, headers in (
        ("ann", callers.ann),
        ("operator", callers.operator),
        ("sidecar", {"dapr-api-token": APP_TOKEN}),
    ):
        await check_who_may(site, who, headers, await ids_of_ann(site, callers, endpoint))
