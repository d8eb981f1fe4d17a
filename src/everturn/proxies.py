"""Which proxy of the environment leads to what is outside of this machine: a model, an identity provider."""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from everturn.errors import SettingError

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_of(base_url: str) -> str | None:
    """The URL of the proxy that the environment names for `base_url`; None if that is reached directly, as loopback is.

    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as curl has them (https://everything.curl.dev/usingcurl/proxies/env).
    It can hold a password. Raises SettingError if it is none that can be used.
    """
    url = urlsplit(base_url)
    host, proxies = url.hostname or "", getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or _is_loopback(host) or proxy_bypass(f"{host}:{url.port or DEFAULT_PORTS[url.scheme]}"):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if not _is_http_url(proxy):
        raise SettingError(
            f"{url.scheme.upper()}_PROXY or ALL_PROXY is no http:// or https:// URL, and {host!r} cannot be "
            f"reached by it: set it to one, or add {host!r} to NO_PROXY"
        )
    return proxy


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
