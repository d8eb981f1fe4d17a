"""Which web pages may call: a browser sends requests to this machine for every page that its user opens.

What a browser says with a request, no page can change: https://fetch.spec.whatwg.org/#origin-header,
https://www.w3.org/TR/fetch-metadata/. A program that is no browser says nothing of it, and passes.
"""

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from everturn.settings import Settings

ANY = "*"


@dataclass(frozen=True, slots=True)
class AllowedPages:
    """`hosts`: names that this server has besides loopback names and addresses; `origins`: pages that may call it.

    A name `*.example.com` is every name under it; `*` is every name, or every origin.
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    @classmethod
    def of(cls, settings: Settings) -> "AllowedPages":
        return cls((settings.host, *settings.allowed_hosts), settings.cors_origins)

    def refusal(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why a request is not for this server, or comes from a foreign page; None if it may pass."""
        host = headers.get("host")
        if host is not None and not self._is_own(host):
            return f"The host {host[:100]!r} is no name of this server: name it in EVERTURN_ALLOWED_HOSTS if it is one."
        origin = headers.get("origin")
        if origin is not None:
            if (
                origin in self.origins
                or ANY in self.origins
                or (host is not None and origin.partition("://")[2] == host)
            ):
                return None
            return (
                f"Pages of {origin[:100]!r} may not call this server: name them in EVERTURN_CORS_ORIGINS if they may."
            )
        if headers.get("sec-fetch-site") == "cross-site" and not _is_followed_link(method, headers):
            return "A page of another site may not call this server."
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a page that was loaded under the name `host` is ours: not if another's DNS made it our address."""
        name = _host_name(host)
        if name is None:
            return False
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        return any(
            allowed == ANY
            or name == allowed.lower()
            or (allowed.startswith("*.") and name.endswith(allowed[1:].lower()))
            for allowed in self.hosts
        )


def _is_followed_link(method: str, headers: Mapping[str, str]) -> bool:
    """A link that the user follows: the page that has it sees nothing of the answer."""
    return (
        method == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without its port; None if there is none."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name.removesuffix(".") if name else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
