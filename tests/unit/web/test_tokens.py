"""Tokens of an identity provider: which hold, and when its keys are read again."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from everturn.errors import SettingError, TerminalError, TransientError
from everturn.testing.clock import ManualClock
from everturn.web.tokens import FRESH_S, STALE_S, UNKNOWN_KEY_PAUSE_S, KeySet, TokenReader
from tests.e2e.proxies import proxy_to
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider, SigningKey


class Endpoint:
    """Where a provider publishes its keys; counts how often it is asked."""

    def __init__(self, provider: IdentityProvider) -> None:
        self.provider = provider
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.answers.wait()
        body = self.provider.jwks()
        status = b"503 Away" if self.is_away else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture
async def endpoint(provider: IdentityProvider) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(provider)
    server = await asyncio.start_server(endpoint.answer, "127.0.0.1", 0)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    async with server:
        yield endpoint


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reader(endpoint: Endpoint, clock: ManualClock) -> TokenReader:
    return TokenReader(KeySet(endpoint.url, clock.elapsed), ISSUER, AUDIENCE, "sub")


def past() -> int:
    return int(time.time()) - 5


WRONG: dict[str, Callable[[IdentityProvider], str]] = {
    "no token": lambda _: "x",
    "an empty part": lambda _: "..",
    "expired": lambda provider: provider.token(exp=past()),
    "without an end": lambda provider: provider.token(exp=None),
    "not yet valid": lambda provider: provider.token(nbf=int(time.time()) + 600),
    "of another issuer": lambda provider: provider.token(iss="https://id.example/realms/other"),
    "without an issuer": lambda provider: provider.token(iss=None),
    "for another audience": lambda provider: provider.token(aud="other"),
    "for no audience": lambda provider: provider.token(aud=None),
    "signed by another's key of the same id": lambda provider: provider.token(key=SigningKey.of_curve()),
    "of an unknown key": lambda provider: provider.token(key=SigningKey.of_curve("other")),
    "unsigned": lambda _: jwt.encode({"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "exp": 2**31}, "", "none"),
    "signed with the public key as a secret": lambda provider: signed_with_the_public_key(provider.keys[0]),
    "cut": lambda provider: provider.token()[:-4],
    "with another user": lambda provider: with_another_user(provider.token()),
    "deeply nested": lambda _: f"{jwt.utils.base64url_encode(b'[' * 40_000).decode()}.e30.e30",
}


def signed_with_the_public_key(key: SigningKey) -> str:
    """https://www.rfc-editor.org/rfc/rfc8725#section-2.1 ; PyJWT refuses to sign so."""
    secret = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "exp": 2**31}
    signed = b".".join(
        jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": key.kid}, claims)
    )
    return b".".join((signed, jwt.utils.base64url_encode(hmac.digest(secret, signed, "sha256")))).decode()


def with_another_user(token: str) -> str:
    head, payload, signature = token.split(".")
    changed = jwt.utils.base64url_decode(payload).replace(b'"ann"', b'"bob"')
    return f"{head}.{jwt.utils.base64url_encode(changed).decode()}.{signature}"


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG.keys())
async def test_a_token_that_does_not_hold_is_refused(
    reader: TokenReader, provider: IdentityProvider, make: Callable[[IdentityProvider], str]
) -> None:
    with pytest.raises(TerminalError) as refused:
        await reader.user_of(make(provider))

    assert refused.value.kind == "bad_token"


async def test_the_user_is_the_claim_of_the_setting(endpoint: Endpoint, provider: IdentityProvider) -> None:
    reader = TokenReader(KeySet(endpoint.url), ISSUER, AUDIENCE, "email")

    assert await reader.user_of(provider.token(email="ann@example.org", aud=["other", AUDIENCE])) == "ann@example.org"


@pytest.mark.parametrize("claim", [None, 7, ["ann"]])
async def test_a_user_claim_that_is_no_text_names_nobody(
    endpoint: Endpoint, provider: IdentityProvider, claim: Any
) -> None:
    assert await TokenReader(KeySet(endpoint.url), ISSUER, AUDIENCE, "email").user_of(provider.token(email=claim)) == ""


async def test_keys_are_read_once_for_many_tokens(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider
) -> None:
    users = await asyncio.gather(*(reader.user_of(provider.token(f"user {n}")) for n in range(20)))

    assert users == [f"user {n}" for n in range(20)]
    assert endpoint.asked == 1


async def test_a_new_key_is_found_at_once_and_a_withdrawn_one_ends_in_time(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider, clock: ManualClock
) -> None:
    old = provider.token()
    await reader.user_of(old)
    provider.keys = [SigningKey.of_curve("second")]
    clock.advance(UNKNOWN_KEY_PAUSE_S + 1)

    assert await reader.user_of(provider.token("bob")) == "bob"
    with pytest.raises(TerminalError):
        await reader.user_of(old)
    assert endpoint.asked == 2


async def test_unknown_keys_do_not_make_it_ask_without_end(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider, clock: ManualClock
) -> None:
    await reader.user_of(provider.token())
    clock.advance(UNKNOWN_KEY_PAUSE_S + 1)
    stranger = IdentityProvider([SigningKey.of_curve("stranger")])

    for _ in range(10):
        with pytest.raises(TerminalError):
            await reader.user_of(stranger.token())

    assert endpoint.asked == 2


async def test_while_the_provider_is_away_the_keys_hold_for_an_hour(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider, clock: ManualClock
) -> None:
    await reader.user_of(provider.token())
    endpoint.is_away = True
    clock.advance(FRESH_S + 1)
    assert await reader.user_of(provider.token()) == "ann"
    clock.advance(STALE_S)

    with pytest.raises(TransientError, match="identity provider"):
        await reader.user_of(provider.token())

    endpoint.is_away = False
    clock.advance(UNKNOWN_KEY_PAUSE_S + 1)
    assert await reader.user_of(provider.token()) == "ann"


async def test_nobody_waits_for_a_slow_provider_while_the_keys_hold(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider, clock: ManualClock
) -> None:
    await reader.user_of(provider.token())
    endpoint.answers.clear()
    clock.advance(FRESH_S + 1)

    async with asyncio.timeout(2):  # it is asked for five seconds
        assert [await reader.user_of(provider.token()) for _ in range(3)] == ["ann"] * 3

    endpoint.answers.set()
    provider.keys = [SigningKey.of_curve("second")]
    clock.advance(UNKNOWN_KEY_PAUSE_S + 1)
    assert await reader.user_of(provider.token("bob")) == "bob"


async def test_a_provider_that_is_away_at_first_is_no_wrong_token(
    reader: TokenReader, endpoint: Endpoint, provider: IdentityProvider
) -> None:
    endpoint.is_away = True

    for _ in range(3):
        with pytest.raises(TransientError):
            await reader.user_of(provider.token())

    assert endpoint.asked == 1


async def test_keys_of_a_name_that_only_a_proxy_reaches_are_read_by_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with proxy_to(int(endpoint.url.split(":")[2].partition("/")[0])) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")

        key = await KeySet("http://id.invalid/jwks").key(None)

    assert key is not None
    assert proxy.asked == ["GET http://id.invalid/jwks HTTP/1.1"]


async def test_a_provider_on_this_machine_is_asked_by_no_proxy(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")

    assert await KeySet(endpoint.url).key(None) is not None


def test_a_proxy_that_no_provider_is_reached_by_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:canary-password@127.0.0.1:9")

    with pytest.raises(SettingError, match="ALL_PROXY") as refused:
        KeySet("https://id.invalid/jwks")

    assert "canary" not in refused.value.message
