"""`/docs`, with nothing from elsewhere."""

import re

import httpx2
import pytest

from everturn.web.files import DOCS_PATHS

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_docs_names_its_own_files_alone(client: httpx2.AsyncClient) -> None:
    page = await client.get("/docs")

    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(named) == DOCS_PATHS - {"/docs"}
    assert "<title>Probe Service</title>" in page.text
    assert "/openapi.json" in (await client.get("/docs/start.js")).text


@pytest.mark.parametrize("path", sorted(DOCS_PATHS))
async def test_a_file_may_load_nothing_from_elsewhere_and_is_sent_once(client: httpx2.AsyncClient, path: str) -> None:
    first = await client.get(path)
    again = await client.get(path, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})

    assert (first.status_code, again.status_code) == (200, 304)
    assert first.content
    assert not again.content
    policy = first.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert first.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/docs/__init__.py", "/docs/../app.py", "/docs/"])
async def test_no_other_file_is_there(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404
