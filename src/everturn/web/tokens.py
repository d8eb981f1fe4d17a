"""JSON Web Tokens of an identity provider (RFC 7519), checked by PyJWT against its published keys (RFC 7517)."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import jwt

from everturn.errors import SettingError, TerminalError, TransientError
from everturn.proxies import proxy_of
from everturn.settings import Settings

# Asymmetric ones alone: with a public key for a secret, anybody could sign (RFC 8725 section 2.1).
ALGORITHMS = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"))
# Seconds: keys are read again after so long; while they cannot be, the old ones hold for so long; and a token with an
# unknown key makes us read them again, but not more often than this.
FRESH_S = 300.0
STALE_S = 3_600.0
UNKNOWN_KEY_PAUSE_S = 10.0
_FETCH_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class KeySet:
    """The provider's keys, from a URL or a file, read when they are needed and kept for a while.

    Raises SettingError for a proxy that cannot be used.
    """

    source: str
    clock: Callable[[], float] = time.monotonic
    _keys: Sequence[jwt.PyJWK] = ()
    _read_at: float | None = None
    _tried_at: float | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Kept, so that it is not collected while it runs.
    _renewal: "asyncio.Task[None] | None" = None
    _proxy: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._proxy = proxy_of(self.source) if is_url(self.source) else None

    async def key(self, kid: str | None) -> jwt.PyJWK | None:
        """The key with that id, or the only one for a token that names none; None if there is none.

        Raises TransientError if the keys cannot be had.
        """
        if self._is_older_than(STALE_S):
            await self._read_again(FRESH_S)
            if self._is_older_than(STALE_S):
                raise TransientError("the identity provider's keys cannot be read", kind="unreachable")
        elif self._is_older_than(FRESH_S) and (self._renewal is None or self._renewal.done()):
            # Those that we have still hold: nobody waits for a provider that is slow.
            self._renewal = asyncio.create_task(self._read_again(FRESH_S))
        found = self._find(kid)
        if found is None and kid is not None and self._is_older_than(UNKNOWN_KEY_PAUSE_S):
            await self._read_again(UNKNOWN_KEY_PAUSE_S)
            found = self._find(kid)
        return found

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == kid), None)

    def _is_older_than(self, seconds: float) -> bool:
        return self._read_at is None or self.clock() - self._read_at > seconds

    async def _read_again(self, older_than_s: float) -> None:
        async with self._reading:
            if not self._is_older_than(older_than_s):
                return  # another request has just done it
            if self._tried_at is None or self.clock() - self._tried_at > UNKNOWN_KEY_PAUSE_S:
                self._tried_at = self.clock()
                try:
                    async with asyncio.timeout(_FETCH_TIMEOUT_S):
                        self._keys = keys_in(await self._fetch())
                except (TimeoutError, httpx2.HTTPError, OSError, ValueError, jwt.PyJWTError) as error:
                    log.warning("jwks_not_read", extra={"error": type(error).__name__})
                else:
                    self._read_at = self.clock()

    async def _fetch(self) -> bytes:
        if not is_url(self.source):
            return await asyncio.to_thread(Path(self.source).read_bytes)
        # By the proxy, and with the certificates, of the environment.
        transport = httpx2.AsyncHTTPTransport(proxy=self._proxy)
        async with httpx2.AsyncClient(transport=transport, timeout=_FETCH_TIMEOUT_S) as client:
            response = await client.get(self.source)
            response.raise_for_status()
            return response.content


def is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def keys_in(document: bytes) -> list[jwt.PyJWK]:
    """The public keys of a JWKS for signatures. Raises ValueError or PyJWTError if there are none."""
    keys = jwt.PyJWKSet.from_json(document.decode()).keys
    usable = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")]
    if not usable:
        raise ValueError("no public key for signatures")
    return usable


@dataclass(frozen=True, slots=True)
class TokenReader:
    """Finds the user in a token: of this issuer, for this audience, not expired, signed by one of `keys`."""

    keys: KeySet
    issuer: str
    audience: str
    user_claim: str

    @classmethod
    def create(cls, settings: Settings) -> "TokenReader":
        """Raises SettingError if the keys are in a file that cannot be used; a URL is only asked when needed."""
        assert settings.jwt_jwks is not None
        assert settings.jwt_issuer is not None
        assert settings.jwt_audience is not None
        if not is_url(settings.jwt_jwks):
            try:
                keys_in(Path(settings.jwt_jwks).read_bytes())
            except (OSError, ValueError, jwt.PyJWTError):
                raise SettingError(
                    f"EVERTURN_JWT_JWKS: {settings.jwt_jwks!r} is no URL, and no file with public keys (JWKS)"
                ) from None
        return cls(KeySet(settings.jwt_jwks), settings.jwt_issuer, settings.jwt_audience, settings.jwt_user_claim)

    async def user_of(self, token: str) -> str:
        """The user that `token` names.

        Raises TerminalError (kind `bad_token`) for one that does not hold, TransientError if the keys cannot be had.
        """
        try:
            key = await self.keys.key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise jwt.InvalidKeyError
            claims = self._claims(token, key)
        except (jwt.PyJWTError, RecursionError) as error:
            # The kind of fault alone: the library's words can repeat what is in the token.
            log.info("token_refused", extra={"error": type(error).__name__})
            raise TerminalError(f"the token is not accepted: {type(error).__name__}", kind="bad_token") from None
        user = claims.get(self.user_claim)
        return user if isinstance(user, str) else ""

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self.issuer,
            audience=self.audience,
            options={"require": ["exp", "iss", "aud"], "verify_iat": False},
        )
        return claims
