"""When the chat service says that it is ready, and when a sidecar is taken to be stuck.

The sidecar's answers are those of Dapr 1.18.0 and of the runtime.
"""

import json

import pytest

from everturn.dapr.metadata import takes_no_worker, unready
from everturn.dapr.wire import Request, Response
from everturn.errors import TerminalError, TransientError

ACTORS = {"runtimeStatus": "RUNNING", "hostReady": True, "placement": "placement: connected"}

AWAY = TransientError("cannot reach it", kind="unreachable")
NEVER = TerminalError("the request cannot be sent")


class Sidecar:
    """Answers health with `health`, and metadata with `metadata`; each request fails with `fault` if there is one."""

    def __init__(self, metadata: object = None, *, health: int = 204, fault: Exception | None = None) -> None:
        self._answers = {
            "/v1.0/healthz/outbound": Response(health),
            "/v1.0/metadata": Response(200, {}, json.dumps(metadata).encode()),
        }
        self._fault = fault

    async def send(self, request: Request) -> Response:
        if self._fault is not None:
            raise self._fault
        return self._answers[request.target]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "metadata",
    [
        {"id": "chat-service", "actorRuntime": ACTORS, "workflows": {"connectedWorkers": 1}},
        {"id": "chat-service", "components": []},
    ],
    ids=["dapr", "in the process"],
)
async def test_a_sidecar_with_a_worker_is_ready(metadata: object) -> None:
    assert await unready(Sidecar(metadata)) is None


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (Sidecar(fault=AWAY), "cannot reach it"),
        (Sidecar(fault=NEVER), "cannot be sent"),
        (Sidecar(health=500), "500"),
        (Sidecar({"actorRuntime": ACTORS}), "worker"),
        (Sidecar({"actorRuntime": ACTORS, "workflows": {}}), "worker"),
        (Sidecar(["no", "object"]), "metadata"),
    ],
    ids=["away", "never asked", "not ready", "no worker since the start", "no worker any more", "no metadata"],
)
async def test_without_them_it_is_not_and_says_why(sidecar: Sidecar, reason: str) -> None:
    assert reason in str(await unready(sidecar))


async def test_a_sidecar_that_could_run_workflows_and_has_no_worker_takes_none() -> None:
    assert await takes_no_worker(Sidecar({"actorRuntime": ACTORS}))


@pytest.mark.parametrize(
    "sidecar",
    [
        Sidecar({"actorRuntime": ACTORS, "workflows": {"connectedWorkers": 1}}),
        Sidecar({"actorRuntime": ACTORS | {"hostReady": False}}),
        Sidecar({"components": []}),
        Sidecar(["no", "object"]),
        Sidecar(fault=AWAY),
        Sidecar(fault=NEVER),
    ],
    ids=["has one", "not yet", "in the process", "no metadata", "away", "never asked"],
)
async def test_no_other_sidecar_is_taken_for_one(sidecar: Sidecar) -> None:
    assert not await takes_no_worker(sidecar)
