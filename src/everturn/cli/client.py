"""What the terminal's clients of a running chat service share: the connection, errors, and what is safe to print."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.text import Text

from everturn.cli.banner import address
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.settings import load_settings

# Beyond any wait that the service offers, so that the service is the one that answers.
_MORE_THAN_ITS_WAIT_S = 30.0

T = TypeVar("T", bound=BaseModel)


def plain(text: str) -> Text:
    """`text` as it is: no markup in it, no character that a terminal would obey."""
    return Text(printable(text))


def printable(text: str) -> str:
    """`text` without the characters that a terminal would obey."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def note(sentence: str) -> None:
    """Say something that is no part of the conversation, on stderr."""
    Console(stderr=True).print(plain(sentence), style="dim", soft_wrap=True)


def command() -> str:
    """How this program is called from here: by its name, if that is found."""
    return "everturn" if shutil.which("everturn") else os.path.relpath(sys.argv[0])


def open_client(url: str | None) -> httpx2.Client:
    """A client of the chat service at `url`, or at the address that the settings name. Raises SettingError.

    It signs in with the token of the settings: an option would show it to everybody on the machine.
    """
    settings = load_settings()
    base_url = url or address(settings.host, settings.chat_port)
    headers = {"Authorization": f"Bearer {settings.token.get_secret_value()}"} if settings.token else {}
    timeout = httpx2.Timeout(5.0, read=settings.request_wait_s + _MORE_THAN_ITS_WAIT_S)
    try:
        return httpx2.Client(base_url=base_url, headers=headers, timeout=timeout, trust_env=False)
    except httpx2.InvalidURL as error:
        raise TerminalError(f"--url: {base_url!r} is no URL") from error


@contextlib.contextmanager
def reaching(client: httpx2.Client) -> Iterator[None]:
    """Say in our own errors why the service of `client` cannot be reached in this block.

    Raises TransientError: kind `refused` if nobody listens, `cut` if the connection broke before the answer.
    """
    try:
        yield
    except httpx2.UnsupportedProtocol as error:
        raise TerminalError(f"--url: '{client.base_url}' does not begin with http:// or https://") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        sentence = f"no chat service answers at {client.base_url}: start it with `everturn up`, or name it with --url"
        raise TransientError(sentence, kind="refused") from error
    except httpx2.TransportError as error:
        raise TransientError(f"{client.base_url} broke off before it answered", kind="cut") from error


def answer_to(client: httpx2.Client, method: str, path: str, shape: type[T], **given: Any) -> T:
    """What the service answers to a request; `given` is what else `httpx2.Client.request` takes.

    Raises TransientError if the service cannot be reached, TerminalError if it refuses or is another one.
    """
    with reaching(client):
        response = client.request(method, path, **given)
    if response.status_code not in (200, 202):
        raise problem(response)
    try:
        return shape.model_validate_json(response.content)
    except ValidationError as error:
        raise TerminalError(f"{response.url} did not answer as a chat service does: is it one?") from error


def path_of(turn_id: str, *rest: str) -> str:
    """The path of a turn, or of what is behind it."""
    return "/".join(("/turns", *(quote(part, safe="") for part in (turn_id, *rest))))


def problem(response: httpx2.Response) -> EverturnError:
    """The error for a refusal (RFC 9457), in the service's own sentence. 503 is transient: it may answer later."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "without saying why"
    sentence = f"the chat service answered {response.status_code}: {detail}"
    kind = f"http_{response.status_code}"
    return TransientError(sentence, kind=kind) if response.status_code == 503 else TerminalError(sentence, kind=kind)
