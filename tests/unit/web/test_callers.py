"""Who calls: by each way of signing in, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from pydantic import SecretStr

from everturn.errors import SettingError, TerminalError
from everturn.settings import Settings
from everturn.web.callers import ANYBODY, OPERATOR, Caller, identify_by
from everturn.web.problems import Problem
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider, SigningKey
from tests.unit.web.conftest import Probe, served

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROXY = {"x-everturn-proxy-token": "proxy-secret"}
BY_HEADER = {"auth": "header", "proxy_token": "proxy-secret", "operator_token": "operator-secret"}


def settings_of(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def by_header() -> AsyncIterator[httpx2.AsyncClient]:
    async for client in served(Probe().build(identify=identify_by(settings_of(**BY_HEADER)))):
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def behind_a_sidecar() -> AsyncIterator[httpx2.AsyncClient]:
    identify = identify_by(settings_of(**BY_HEADER))
    async for client in served(Probe().build(SecretStr("app-secret"), identify=identify)):
        yield client


@pytest.fixture(scope="session")
def provider() -> IdentityProvider:
    return IdentityProvider([SigningKey.of_rsa(), SigningKey.of_curve()])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def by_token(
    provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx2.AsyncClient]:
    file = tmp_path_factory.mktemp("jwks") / "jwks.json"
    await asyncio.to_thread(file.write_bytes, provider.jwks())
    settings = settings_of(
        auth="jwt", jwt_jwks=str(file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE, operator_token="operator-secret"
    )
    async for client in served(Probe().build(identify=identify_by(settings))):
        yield client


async def test_where_nobody_signs_in_the_caller_may_be_anybody(client: httpx2.AsyncClient) -> None:
    response = await client.get("/caller", headers={**PROXY, "x-forwarded-user": "ann"})

    assert response.json() == {"user_id": None, "operator": False}


async def test_the_proxy_names_the_user(by_header: httpx2.AsyncClient) -> None:
    response = await by_header.get("/caller", headers=encoded([*PROXY.items(), ("x-forwarded-user", "Łukasz / 1")]))

    assert response.json() == {"user_id": "Łukasz / 1", "operator": False}


NOT_THE_PROXY: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "no user": [*PROXY.items()],
    "a blank user": [*PROXY.items(), ("x-forwarded-user", "\xa0")],
    "an impossible user": [*PROXY.items(), ("x-forwarded-user", "x" * 257)],
    "no token": [("x-forwarded-user", "ann")],
    "a wrong token": [("x-everturn-proxy-token", "proxy-secre"), ("x-forwarded-user", "ann")],
    "an empty token": [("x-everturn-proxy-token", ""), ("x-forwarded-user", "ann")],
    "a token of other letters": [("x-everturn-proxy-token", "pröxy"), ("x-forwarded-user", "ann")],
    "two tokens": [*PROXY.items(), *PROXY.items(), ("x-forwarded-user", "ann")],
    "two users": [*PROXY.items(), ("x-forwarded-user", "bob"), ("x-forwarded-user", "ann")],
    "a user in another case and again": [*PROXY.items(), ("X-Forwarded-User", "bob"), ("x-forwarded-user", "ann")],
    "a wrong operator": [("authorization", "Bearer operator")],
    "an operator who does not bear": [("authorization", "Basic operator-secret")],
    "two authorizations": [("authorization", "Bearer operator-secret"), ("authorization", "Bearer x")],
}


@pytest.mark.parametrize("headers", NOT_THE_PROXY.values(), ids=NOT_THE_PROXY.keys())
@pytest.mark.parametrize("path", ["/caller", "/things/x", "/no-such-route"])
async def test_who_is_not_signed_in_is_401_everywhere(
    by_header: httpx2.AsyncClient, headers: list[tuple[str, str]], path: str
) -> None:
    response = await by_header.get(path, headers=encoded(headers))

    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_what_tells_nothing_of_a_user_is_open(by_header: httpx2.AsyncClient, path: str) -> None:
    assert (await by_header.get(path)).status_code == 200


async def test_an_operator_may_act_for_all(by_header: httpx2.AsyncClient, by_token: httpx2.AsyncClient) -> None:
    for client in (by_header, by_token):
        response = await client.get("/caller", headers={"authorization": "bearer operator-secret"})

        assert response.json() == {"user_id": None, "operator": True}


async def test_a_service_behind_a_sidecar_takes_signed_in_users_and_its_sidecar(
    behind_a_sidecar: httpx2.AsyncClient,
) -> None:
    user = await behind_a_sidecar.get("/caller", headers={**PROXY, "x-forwarded-user": "ann"})
    sidecar = await behind_a_sidecar.get("/caller", headers={"dapr-api-token": "app-secret"})
    nobody = await behind_a_sidecar.get("/caller")

    assert user.json()["user_id"] == "ann"
    assert sidecar.json() == {"user_id": None, "operator": True}
    assert nobody.status_code == 401


@pytest.mark.parametrize("path", ["/event", "/%65vent"])
async def test_a_path_of_the_sidecar_is_closed_to_users_and_operators(
    behind_a_sidecar: httpx2.AsyncClient, path: str
) -> None:
    callers = [{**PROXY, "x-forwarded-user": "ann"}, {"authorization": "Bearer operator-secret"}, {}]
    refused = [(await behind_a_sidecar.post(path, headers=headers)).status_code for headers in callers]
    taken = await behind_a_sidecar.post(path, headers={"dapr-api-token": "app-secret"})

    assert refused == [401, 401, 401]
    assert taken.json() == {"taken": True}


async def test_a_token_names_the_user(by_token: httpx2.AsyncClient, provider: IdentityProvider) -> None:
    for key in provider.keys:
        token = provider.token("ann", key=key)
        response = await by_token.get("/caller", headers={"authorization": f"Bearer {token}"})

        assert response.json() == {"user_id": "ann", "operator": False}


async def test_without_a_token_that_holds_nobody_is_signed_in(
    by_token: httpx2.AsyncClient, provider: IdentityProvider
) -> None:
    wrong = await by_token.get("/caller", headers={"authorization": "Bearer nonsense"})
    none = await by_token.get("/caller", headers={**PROXY, "x-forwarded-user": "ann"})

    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_user_acts_for_nobody_else() -> None:
    ann = Caller("ann")

    assert (ann.acts_for(None), ann.acts_for("ann"), OPERATOR.acts_for("bob")) == ("ann", "ann", "bob")
    assert (ann.may_see("ann"), ann.may_see("Ann"), ANYBODY.may_see("bob")) == (True, False, True)
    with pytest.raises(TerminalError, match="signed-in") as refused:
        ann.acts_for("bob")
    assert refused.value.kind == "forbidden"
    with pytest.raises(Problem, match="user_id") as unnamed:
        ANYBODY.acts_for(None)
    assert unnamed.value.status_code == 422


async def test_secrets_are_not_shown_with_the_settings() -> None:
    shown = repr(settings_of(**BY_HEADER))

    assert "secret" not in shown.replace("SecretStr", "").replace("key_secret", "")


async def test_a_file_without_keys_is_a_wrong_setting(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    for content in (b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'):
        file.write_bytes(content)
        with pytest.raises(SettingError, match="EVERTURN_JWT_JWKS"):
            identify_by(settings_of(auth="jwt", jwt_jwks=str(file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE))
