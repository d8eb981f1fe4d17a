"""Requests of the command line's clients to a running chat service."""

import httpx2

from everturn.cli.banner import address
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.settings import load_settings

# Beyond any wait that the service offers, so that the service is the one that answers.
_MORE_THAN_ITS_WAIT_S = 30.0


def open_client(url: str | None) -> httpx2.Client:
    """A client of the chat service at `url`, or at the address that the settings name. Raises SettingError."""
    settings = load_settings()
    base_url = url or address(settings.host, settings.chat_port)
    timeout = httpx2.Timeout(5.0, read=settings.request_wait_s + _MORE_THAN_ITS_WAIT_S)
    try:
        return httpx2.Client(base_url=base_url, timeout=timeout, trust_env=False)
    except httpx2.InvalidURL as error:
        raise TerminalError(f"--url: {base_url!r} is no URL") from error


def send(client: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    """The answer to `request`, whatever its status.

    Raises TransientError: kind `refused` where nobody listens, `cut` where the connection broke before the answer.
    """
    try:
        return client.send(request)
    except httpx2.UnsupportedProtocol as error:
        raise TerminalError(f"--url: '{client.base_url}' is no http URL") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        sentence = f"no chat service answers at {client.base_url}: start it with `everturn up`, or name it with --url"
        raise TransientError(sentence, kind="refused") from error
    except httpx2.TransportError as error:
        raise TransientError(f"{client.base_url} broke off before it answered", kind="cut") from error


def problem(response: httpx2.Response) -> EverturnError:
    """The error that a refusal (RFC 9457) stands for, in the service's own sentence."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "without saying why"
    return TerminalError(
        f"the chat service answered {response.status_code}: {detail}", kind=f"http_{response.status_code}"
    )
