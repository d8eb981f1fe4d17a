"""The sidecar of an app in another process: both of Dapr's APIs, to be put on sockets."""

from dataclasses import dataclass

from everturn.runtime.asgi_front import as_asgi
from everturn.runtime.grpc_dapr import dapr_handlers
from everturn.runtime.grpc_server import GrpcServer
from everturn.runtime.grpc_task_hub import task_hub_handlers
from everturn.runtime.grpc_worker import RemoteWorker
from everturn.runtime.http_front import HttpFront
from everturn.runtime.task_hub import TaskHub
from everturn.runtime.workflows import WorkflowEngine
from everturn.sidecar.asgi_transport import AsgiApp


@dataclass(frozen=True, slots=True)
class ServedApp:
    """`http` is the ASGI app of Dapr's HTTP API, `grpc` the server of its gRPC API, not yet started.

    `worker` says how many streams of work are open.
    """

    app_id: str
    http: AsgiApp
    grpc: GrpcServer
    worker: RemoteWorker

    @classmethod
    def over(cls, front: HttpFront, engine: WorkflowEngine, worker: RemoteWorker, task_hub: TaskHub) -> "ServedApp":
        """The app's sidecar over what the runtime has; `worker` gets the app's work from now on."""
        app_id = front.app_id
        engine.register(app_id, worker)
        hub = task_hub_handlers(task_hub, worker, lambda: engine.try_again(app_id))
        front.app.own.connected_workers = lambda: worker.connected
        dapr = dapr_handlers(front.app)
        return cls(app_id, as_asgi(front), GrpcServer([hub, dapr], api_token=front.api_token), worker)
