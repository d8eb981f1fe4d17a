"""Whether turns can be run now: the sidecar answers, and the workflow worker of this service has connected to it."""

from pydantic import BaseModel, Field, ValidationError

from everturn.errors import TransientError
from everturn.sidecar.wire import Request, Response, Transport


class _Workflows(BaseModel):
    connected: int = Field(0, alias="connectedWorkers")


class _Metadata(BaseModel):
    """What is read of `/v1.0/metadata` (https://docs.dapr.io/reference/api/metadata_api/).

    Only a runtime that has workers in other processes tells of its actor runtime; without any, `workflows` is absent.
    """

    actor_runtime: dict[str, object] | None = Field(None, alias="actorRuntime")
    workflows: _Workflows = Field(default_factory=_Workflows)


async def unready(transport: Transport) -> str | None:
    """Why turns cannot be run now, in one sentence; None where they can.

    The model is no part of it: accepted turns must resume without it.
    """
    try:
        await _ask(transport, "/v1.0/healthz/outbound")
        metadata = _Metadata.model_validate_json((await _ask(transport, "/v1.0/metadata")).body)
    except TransientError as error:
        return f"the sidecar is not ready: {error.message}"
    except ValidationError:
        return "the sidecar is not ready: it does not tell its metadata"
    if metadata.actor_runtime is not None and metadata.workflows.connected == 0:
        return "the workflow worker has not connected to the sidecar"
    return None


async def _ask(transport: Transport, path: str) -> Response:
    response = await transport.send(Request("GET", path))
    if response.status >= 300:
        raise TransientError(f"{path} answered {response.status}")
    return response
