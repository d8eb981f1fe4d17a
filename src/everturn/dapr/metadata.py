"""What a sidecar tells of itself (https://docs.dapr.io/reference/api/metadata_api/): whether it gives work to a worker.

Only a runtime that has workers in other processes names its actor runtime; without any, `workflows` is absent.
"""

from pydantic import BaseModel, Field, ValidationError

from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TerminalError, TransientError


class _Workflows(BaseModel):
    connected: int = Field(0, alias="connectedWorkers")


class _Actors(BaseModel):
    is_ready: bool = Field(default=False, alias="hostReady")


class _Metadata(BaseModel):
    actors: _Actors | None = Field(None, alias="actorRuntime")
    workflows: _Workflows = Field(default_factory=_Workflows)


async def unready(transport: Transport) -> str | None:
    """Why turns cannot be run now, in one sentence; None if they can.

    The model is no part of it: accepted turns must resume without it.
    """
    try:
        await _ask(transport, "/v1.0/healthz/outbound")
        metadata = await _metadata(transport)
    except (TransientError, TerminalError) as error:
        return f"the sidecar is not ready: {error.message}"
    except ValidationError:
        return "the sidecar is not ready: it does not give its metadata"
    if metadata.actors is not None and metadata.workflows.connected == 0:
        return "the workflow worker has not connected to the sidecar"
    return None


async def takes_no_worker(transport: Transport) -> bool:
    """Whether the sidecar could run workflows, and has no worker."""
    try:
        metadata = await _metadata(transport)
    except (TransientError, TerminalError, ValidationError):
        return False
    return metadata.actors is not None and metadata.actors.is_ready and metadata.workflows.connected == 0


async def _metadata(transport: Transport) -> _Metadata:
    return _Metadata.model_validate_json((await _ask(transport, "/v1.0/metadata")).body)


async def _ask(transport: Transport, path: str) -> Response:
    response = await transport.send(Request("GET", path))
    if response.status >= 300:
        raise TransientError(f"{path} answered {response.status}")
    return response
