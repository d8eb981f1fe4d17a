"""The HTTP side of an OpenAI-compatible endpoint: which one, and a transport that trusts nothing it answers."""

from dataclasses import dataclass, field

import httpx2

from everturn.models.completion import checked_completion
from everturn.models.faults import bad_reply, status_fault
from everturn.models.replies import MAX_REPLY_BYTES, too_large
from everturn.models.secret_key import SecretKey
from everturn.settings import GEMINI_BASE_URL, GEMINI_MODEL_NAME, Settings

# A reply of 1 MiB can take three times as much as JSON with `\u` escapes (two bytes of UTF-8 become six); the rest is
# for what stands around it.
MAX_BODY_BYTES = 4 * MAX_REPLY_BYTES
# Longest wait for a connection, in seconds; the step's own limit bounds the whole call.
_CONNECT_TIMEOUT_S = 10.0
# The SDK takes ids for OpenAI's own cloud from the environment, which are nobody else's business, and has no key.
_SDK_HEADERS = ("openai-organization", "openai-project", "authorization")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint. `timeout_s`: longest silence within a call, in seconds."""

    base_url: str
    model_name: str
    api_key: str | None = field(repr=False)
    timeout_s: float


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The endpoint that `settings` ask for: their own, else Gemini where there is a key for it, else None (offline)."""
    timeout_s = settings.generate_timeout_s
    if settings.model_base_url is not None and settings.model_name is not None:
        key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
        return Endpoint(settings.model_base_url, settings.model_name, key, timeout_s)
    if settings.gemini_api_key is not None:
        return Endpoint(GEMINI_BASE_URL, GEMINI_MODEL_NAME, settings.gemini_api_key.get_secret_value(), timeout_s)
    return None


def http_client(endpoint: Endpoint, secret_key: SecretKey | None = None) -> httpx2.AsyncClient:
    """A client that follows no redirects, uses no proxy of the environment, and reads no more than MAX_BODY_BYTES.

    It sends the endpoint's key, that of `secret_key` where the endpoint has none, or no key at all.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx2.AsyncClient(
        transport=_CheckedTransport(
            httpx2.AsyncHTTPTransport(limits=limits, trust_env=False), endpoint.api_key, secret_key
        ),
        timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, _CONNECT_TIMEOUT_S)),
        follow_redirects=False,
        trust_env=False,
    )


class _CheckedTransport(httpx2.AsyncBaseTransport):
    """Gives a checked completion or raises the sorted fault; the body of an error is never read."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, key: str | None, secret_key: SecretKey | None) -> None:
        self._inner = inner
        self._key = key
        self._secret_key = secret_key

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name in _SDK_HEADERS:
            request.headers.pop(name, None)
        if key := self._key or (await self._secret_key.read() if self._secret_key else None):
            request.headers["authorization"] = f"Bearer {key}"
        request.headers["accept-encoding"] = "identity"  # a compressed body has no bound until it is unpacked
        response = await self._inner.handle_async_request(request)
        try:
            if not 200 <= response.status_code < 300:
                raise status_fault(response.status_code, response.headers)
            body = await _read(response)
        finally:
            await response.aclose()
        return httpx2.Response(
            response.status_code, headers={"content-type": "application/json"}, content=checked_completion(body)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read(response: httpx2.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise bad_reply("it is compressed although that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
    return bytes(body)
