"""Replicas of a service in one simulated machine: each has memory of its own, and they share requests and work."""

from random import Random
from typing import Any

from dapr.ext.workflow import WorkflowRuntime

from everturn.dapr.client import SidecarClient
from everturn.dapr.sdk import protocol as pb
from everturn.dapr.wire import Request, Response, Transport
from everturn.dapr.workflows import Sidecar
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.runtime.workflow.worker import LocalWorker, WorkflowRequest


class SharedTransport:
    """A `Transport` that leads each request to one of the replicas."""

    def __init__(self, random: Random, *ways: Transport) -> None:
        self.ways = list(ways)
        self._random = random

    async def send(self, request: Request) -> Response:
        return await self._random.choice(self.ways).send(request)

    async def close(self) -> None: ...


class Team:
    """A `Worker` of all replicas of an app: each turn of a workflow and each activity is done by one of them."""

    def __init__(self, app_id: str, runtime: EmbeddedRuntime, random: Random) -> None:
        self._app_id = app_id
        self._runtime = runtime
        self._random = random
        self._workers: list[LocalWorker] = []
        self._sidecar: Sidecar | None = None

    def sidecar(self, given: Sidecar | None = None) -> "ReplicaSidecar":
        """That of another replica: `given`, or the one that was given first."""
        self._sidecar = self._sidecar or given
        assert self._sidecar is not None
        return ReplicaSidecar(self._sidecar, self)

    def add(self, worker: WorkflowRuntime) -> None:
        self._workers.append(LocalWorker(worker))
        if len(self._workers) == 1:
            self._runtime.engine.register(self._app_id, self)

    async def run_workflow(self, request: WorkflowRequest) -> pb.WorkflowResponse:
        return await self._random.choice(self._workers).run_workflow(request)

    async def run_activity(self, request: pb.ActivityRequest) -> pb.ActivityResponse:
        return await self._random.choice(self._workers).run_activity(request)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class ReplicaSidecar:
    """The sidecar that all replicas share."""

    def __init__(self, inner: Sidecar, team: Team) -> None:
        self._inner = inner
        self._team = team

    @property
    def transport(self) -> Transport:
        return self._inner.transport

    @property
    def client(self) -> SidecarClient:
        return self._inner.client

    @property
    def workflows(self) -> Any:
        return self._inner.workflows

    async def start(self, worker: WorkflowRuntime) -> None:
        self._team.add(worker)

    async def stop(self) -> None: ...
