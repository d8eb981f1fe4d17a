"""The sidecar of a service that runs beside a real one: Dapr's, or an Everturn runtime in another process."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from dapr.conf import settings as sdk_settings
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from everturn.dapr.client import DaprClient
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.metadata import takes_no_worker
from everturn.dapr.sdk.loggers import tame_sdk_loggers
from everturn.dapr.sdk.worker_thread import WorkerThread, bridge_coroutines, close_client, patch_suspend_resume
from everturn.dapr.wire import Request
from everturn.errors import TransientError
from everturn.settings import Settings

log = logging.getLogger(__name__)

# A sidecar is on the same machine, or in the same pod.
_HOST = "127.0.0.1"
# Seconds in which a worker connects to a sidecar that is there, and between two looks whether it still is.
_FIRST_LOOK_S, _LOOK_EVERY_S = 3.0, 1.0
# A sidecar is stuck if it is asked so many times, with that pause, and never has the worker that has connected to it.
_REFUSALS, _ASK_EVERY_S = 4, 5.0
# Seconds in which a sidecar that was asked to end takes no new connection any more.
_CLOSED_WITHIN_S = 2.0


class DaprSidecar:
    """`Sidecar` over HTTP and gRPC, at the ports and with the token of the settings.

    The SDK reads ports and token from its own settings whenever a worker or client is made: they are set here, so that
    a `.env` file counts for it as well. Make the `WorkflowRuntime` after this object.
    """

    def __init__(self, settings: Settings) -> None:
        token = settings.dapr_api_token.get_secret_value() if settings.dapr_api_token is not None else None
        sdk_settings.DAPR_RUNTIME_HOST = _HOST
        sdk_settings.DAPR_HTTP_PORT = settings.dapr_http_port
        sdk_settings.DAPR_GRPC_PORT = settings.dapr_grpc_port
        sdk_settings.DAPR_API_TOKEN = token
        headers = {"dapr-api-token": token} if token is not None else None
        self.transport = HttpTransport(
            f"http://{_HOST}:{settings.dapr_http_port}", headers=headers, missing=_advice(settings.dapr_http_port)
        )
        self.client = DaprClient(self.transport)
        self._grpc_port = settings.dapr_grpc_port
        self._watching: Sequence[asyncio.Task[None]] = ()
        self.workflows = DaprWorkflowClient(host=_HOST, port=str(settings.dapr_grpc_port))
        self._worker: WorkerThread | None = None
        tame_sdk_loggers()

    async def start(self, worker: WorkflowRuntime) -> None:
        """Begin to run what is registered on `worker`, its coroutine activities in the running loop.

        Returns at once, while the worker waits for the sidecar in its thread: a sidecar may itself wait for this
        service to listen, and a service answers `/healthz` without one.
        """
        tame_sdk_loggers()
        patch_suspend_resume(worker)
        bridge_coroutines(worker, asyncio.get_running_loop())
        self._worker = WorkerThread(worker)
        self._worker.start()
        self._watching = [asyncio.create_task(work(self._worker)) for work in (self._watch, self._end_stuck)]

    async def stop(self) -> None:
        """Stop taking work. What is not finished is given out again by the sidecar."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None
        await close_client(self.workflows)

    async def _watch(self, worker: WorkerThread) -> None:
        """Log when the sidecar is missed, and when it is there again; the SDK's own words are about its stream."""
        is_missed = False
        await asyncio.sleep(_FIRST_LOOK_S)
        while True:
            if not worker.is_connected and not is_missed:
                log.warning("sidecar_missing", extra={"advice": _advice(self._grpc_port)})
            elif worker.is_connected and is_missed:
                log.info("sidecar_found", extra={"port": self._grpc_port})
            is_missed = not worker.is_connected
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _end_stuck(self, worker: WorkerThread) -> None:
        """End a sidecar that takes the worker's stream and no worker: whoever started it starts it again.

        Dapr 1.18 does so for ever if a work item was about to be handed out when its last worker died: the work item
        waits for a worker, the end of that worker for the work item, and the next worker for the end
        (https://github.com/dapr/dapr/pull/10408).
        """
        while True:
            refusals = 0
            while refusals < _REFUSALS:
                await asyncio.sleep(_ASK_EVERY_S)
                refusals = refusals + 1 if worker.is_connected and await takes_no_worker(self.transport) else 0
            log.error("sidecar_stuck", extra={"advice": "it is ended now: start it again, unless something else does"})
            stream = worker.stream
            with suppress(TransientError):
                await self.transport.send(Request("POST", "/v1.0/shutdown"))
            # It stops its workflow engine at once, and waits with its own end for that of the worker's stream.
            await asyncio.sleep(_CLOSED_WITHIN_S)
            stream.cancel()


def _advice(port: int) -> str:
    return f"no sidecar at {_HOST}:{port}: start `everturn runtime`, or Dapr's"
