"""Which OpenAI-compatible endpoint the settings ask for."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2

from everturn.proxies import DEFAULT_PORTS, proxy_of
from everturn.settings import GEMINI_BASE_URL, GEMINI_MODEL_NAME, OFFLINE_MODEL_NAME, Settings


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint. `timeout_s`: longest silence in a call, in seconds. `proxy`: see `proxy_of`."""

    base_url: str
    model_name: str
    api_key: str | None = field(repr=False)
    timeout_s: float
    proxy: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """Scheme, host and port, to be shown: the rest of the URL can hold a password."""
        url = urlsplit(self.base_url)
        host = url.hostname or ""
        return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port or DEFAULT_PORTS[url.scheme]}"

    def transport(self) -> httpx2.AsyncHTTPTransport:
        """The way to it. Certificates are those of the system, or of SSL_CERT_FILE: a proxy may have its own."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx2.AsyncHTTPTransport(limits=limits, proxy=self.proxy, trust_env=True)


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The endpoint that `settings` ask for: their own, else Gemini if there is a key for it, else None (offline).

    Raises SettingError for a proxy that cannot be used.
    """
    if settings.model_base_url is not None and settings.model_name is not None:
        base_url, name, secret = settings.model_base_url, settings.model_name, settings.model_api_key
    elif settings.gemini_api_key is not None:
        base_url, name, secret = GEMINI_BASE_URL, settings.model_name or GEMINI_MODEL_NAME, settings.gemini_api_key
    else:
        return None
    key = secret.get_secret_value() if secret else None
    return Endpoint(base_url, name, key, settings.generate_timeout_s, proxy_of(base_url))


def model_name(settings: Settings) -> str:
    """What `ChatReply.model` shows: the configured name, `offline-demo` without an endpoint."""
    endpoint = endpoint_of(settings)
    return endpoint.model_name if endpoint else OFFLINE_MODEL_NAME
