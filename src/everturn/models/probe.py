"""Asking an endpoint which models it has, as a look whether it can be used: it costs nothing."""

import asyncio
import json
from dataclasses import dataclass

import httpx2

from everturn.models.endpoint import Endpoint
from everturn.models.faults import translate_errors

_LIMIT_S = 10.0
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """`models`: their ids, None if it gave no list. `date`: its header Date."""

    status: int
    models: frozenset[str] | None
    date: str | None


async def ask_for_models(endpoint: Endpoint, key: str | None) -> EndpointAnswer:
    """What the endpoint answers to GET /models, by the proxy and the certificates of a model call.

    Raises TransientError if it does not answer in ten seconds.
    https://platform.openai.com/docs/api-reference/models/list
    """
    headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {})
    url = f"{endpoint.base_url.rstrip('/')}/models"
    transport = endpoint.transport()
    with translate_errors():
        async with (
            httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None) as client,
            asyncio.timeout(_LIMIT_S),
            client.stream("GET", url, headers=headers) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MOST_BYTES:
                    break
            return EndpointAnswer(response.status_code, _ids(bytes(body)), response.headers.get("date"))


def _ids(body: bytes) -> frozenset[str] | None:
    try:
        items = json.loads(body)["data"]
        # Gemini calls them models/gemini-….
        return frozenset(str(item["id"]).removeprefix("models/") for item in items)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
