"""What `everturn up` shows a person: addresses, folder, model, what was resumed, and one line to try."""

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from everturn import __version__
from everturn.models.endpoint import endpoint_of, model_name
from everturn.proxies import DEFAULT_PORTS
from everturn.settings import GEMINI_BASE_URL, Settings

_REACH_LIMIT_S = 3.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown to a person, not listened on


def address(host: str, port: int) -> str:
    """The URL at which this machine reaches a listener on `host` and `port`."""
    reachable = _ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def print_banner(settings: Settings, *, components: Path | None, resumed: int) -> None:
    """What runs, and a line to try. `components`: the folder of component files, None for the built-in ones."""
    endpoint = endpoint_of(settings)
    at = f"at {endpoint.origin}" if endpoint else "(GEMINI_API_KEY or EVERTURN_MODEL_* set another)"
    chat = address(settings.host, settings.chat_port)
    _say(f"Everturn {__version__} is running as process {os.getpid()}. Ctrl-C stops it.")
    _say(f"  chat service    {chat}  (API: {chat}/docs)")
    _say(f"  memory service  {address(settings.host, settings.memory_port)}")
    _say(f"  data folder     {settings.data_dir.resolve()}")
    if components is not None:
        _say(f"  components      {components.resolve()}")
    _say(f"  model           {model_name(settings)} {at}")
    _say(f"  resumed {resumed} unfinished turn{'' if resumed == 1 else 's'}")
    _say("Try:")
    _say(
        f"  curl -X POST {chat}/chat/ -H 'Content-Type: application/json' "
        """-d '{"user_id":"junaid","text":"Hi there"}'"""
    )


def print_slow_start(settings: Settings) -> None:
    _say(f"Still starting: loading the agent, and what was left unfinished in {settings.data_dir.resolve()} …")


async def print_model_warning(settings: Settings) -> None:
    """Say so if the model's endpoint, or the proxy on the way, does not answer; it may come back, and turns wait."""
    endpoint = endpoint_of(settings)
    if endpoint is None:
        return
    url = urlsplit(endpoint.proxy or endpoint.base_url)
    port = url.port or DEFAULT_PORTS[url.scheme]
    try:
        async with asyncio.timeout(_REACH_LIMIT_S):
            _, writer = await asyncio.open_connection(url.hostname, port)
        writer.close()
    except OSError:  # TimeoutError is one
        what, check = f"the model endpoint {endpoint.origin}", "EVERTURN_MODEL_BASE_URL, and whether the endpoint runs"
        if endpoint.proxy:
            what, check = f"the proxy {url.hostname}:{port} on the way to {what}", "HTTPS_PROXY and NO_PROXY"
        elif endpoint.base_url == GEMINI_BASE_URL:
            check = "the network, and whether it needs HTTPS_PROXY"
        advice = f"{what} cannot be reached: check {check}; turns wait and retry until it can"
        print(f"warning: {advice}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, flush=True)
