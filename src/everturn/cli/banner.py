"""What `everturn up` tells a person: addresses, folder, model, what was resumed, and one line to try."""

import asyncio
import os
import sys
from urllib.parse import urlsplit

from everturn import __version__
from everturn.models.build import model_name
from everturn.models.endpoint import endpoint_of
from everturn.settings import Settings

_REACH_LIMIT_S = 3.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown to a person, not listened on


def address(host: str, port: int) -> str:
    """The URL at which this machine reaches a listener on `host` and `port`."""
    reachable = _ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def print_banner(settings: Settings, *, resumed: int) -> None:
    endpoint = endpoint_of(settings)
    # Of the base URL only the host: it can hold a password.
    where = (
        f"at {urlsplit(endpoint.base_url).hostname}" if endpoint else "(GEMINI_API_KEY or EVERTURN_MODEL_* set another)"
    )
    chat = address(settings.host, settings.chat_port)
    _say(f"Everturn {__version__} is running as process {os.getpid()}. Ctrl-C stops it.")
    _say(f"  chat service    {chat}  (API: {chat}/docs)")
    _say(f"  memory service  {address(settings.host, settings.memory_port)}")
    _say(f"  data folder     {settings.data_dir.resolve()}")
    _say(f"  model           {model_name(settings)} {where}")
    _say(f"  resumed {resumed} unfinished turns")
    _say("Try:")
    _say(
        f"  curl -X POST {chat}/chat/ -H 'Content-Type: application/json' "
        """-d '{"user_id":"junaid","text":"Hi there"}'"""
    )


def print_slow_start(settings: Settings) -> None:
    _say(f"Still starting: loading the agent, and what was left unfinished in {settings.data_dir.resolve()} …")


async def print_model_warning(settings: Settings) -> None:
    """Say so where the model's endpoint does not answer; it may come back, and turns wait for it."""
    endpoint = endpoint_of(settings)
    if endpoint is None:
        return
    url = urlsplit(endpoint.base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_REACH_LIMIT_S):
            _, writer = await asyncio.open_connection(url.hostname, port)
        writer.close()
    except OSError:  # TimeoutError is one
        print(
            f"warning: the model endpoint at {url.hostname} cannot be reached; turns wait and retry until it can",
            file=sys.stderr,
            flush=True,
        )


def _say(line: str) -> None:
    print(line, flush=True)
