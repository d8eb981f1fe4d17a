"""Between two runtimes: requests to another's socket, and what is answered there."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import AsgiApp, Request, Response
from everturn.errors import TerminalError, TransientError
from everturn.runtime.building_blocks import BuildingBlocks
from everturn.runtime.http.asgi import as_asgi
from everturn.runtime.http.handlers import NO_CONTENT
from everturn.runtime.peers.folder import Peer
from everturn.runtime.peers.peer_worker import ACTIVITY, TURN, do_work
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.runtime.workflow.rpc import LIST_IDS, RPCS, RpcFault
from everturn.runtime.workflow.task_hub import TaskHub

_INVOKE = "/invoke"
_MESSAGES = "/messages/"
# The calls of a task hub, and the status of a call that failed.
HUB = "/task-hub/"
FAULT = 409
_CALLS = {rpc.method: rpc for rpc in RPCS if rpc is not LIST_IDS}
# On an answer that the runtime gave because its app gave none.
_NO_ANSWER = "everturn-no-answer"
ANSWER_WITHIN_S = 300.0
# A work item has its whole history with it; how much of that its worker can take, the worker's own runtime says.
_MAX_BODY_BYTES = 64 * 1024 * 1024


def inbox_route(pubsub: str, topic: str) -> str:
    """The route on which another runtime takes messages of a topic."""
    return f"{_MESSAGES}{quote(pubsub, safe='')}/{quote(topic, safe='')}"


class PeerTransport:
    """A `Transport` to another runtime's socket, wherever that is now; `to_app`: through it to its app.

    `timeout_s`: seconds for an answer, None if work may take as long as it takes.
    """

    def __init__(
        self, find: Callable[[], Peer | None], *, to_app: bool, timeout_s: float | None = ANSWER_WITHIN_S
    ) -> None:
        self._find = find
        self._timeout_s = timeout_s
        self._prefix = _INVOKE if to_app else ""
        self._socket: str | None = None
        self._transport: HttpTransport | None = None

    async def send(self, request: Request) -> Response:
        transport = await self._connected()
        response = await transport.send(replace(request, target=self._prefix + request.target))
        if _NO_ANSWER in response.headers:
            raise TransientError("the app's runtime cannot reach it", kind=response.headers[_NO_ANSWER])
        return response

    async def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _connected(self) -> HttpTransport:
        peer = self._find()
        if peer is None or peer.socket is None:
            raise TransientError("the app's runtime is not running", kind="unreachable")
        if self._transport is None or self._socket != peer.socket:
            left = self._transport
            # A loopback name: the app behind a peer refuses any other (DNS rebinding).
            transport = self._transport = HttpTransport(
                "http://localhost",
                missing="cannot reach the app's runtime",
                socket=peer.socket,
                timeout_s=self._timeout_s,
            )
            self._socket = peer.socket
            if left is not None:
                await left.close()
            return transport
        return self._transport


def peer_api(app_id: str, blocks: BuildingBlocks, engine: WorkflowEngine) -> AsgiApp:
    """What the runtime of `app_id` answers to others: requests for its app, messages and workflow work that they have
    for it.
    """
    return as_asgi(_PeerApi(app_id, blocks, engine).handle, _MAX_BODY_BYTES)


class _PeerApi:
    def __init__(self, app_id: str, blocks: BuildingBlocks, engine: WorkflowEngine) -> None:
        self._app_id = app_id
        self._blocks = blocks
        self._engine = engine

    async def handle(self, request: Request) -> Response:
        if request.target.startswith(_INVOKE + "/"):
            return await self._invoke(request)
        if request.target.startswith(_MESSAGES) and request.method == "POST":
            return await self._accept(request)
        if request.target in (TURN, ACTIVITY):
            worker = self._engine.worker_of(self._app_id)
            return Response(503) if worker is None else await do_work(worker, request)
        if request.target.startswith(HUB):
            return await _answer_for(self._engine.task_hub, request)
        return Response(404)

    async def _invoke(self, request: Request) -> Response:
        channel = self._blocks.channels.by_id.get(self._app_id)
        if channel is None:
            return Response(502, {_NO_ANSWER: "unreachable"})
        target = request.target.removeprefix(_INVOKE)
        try:
            return await channel.send(Request(request.method, target, request.headers, request.body))
        except (TransientError, TerminalError) as error:
            return Response(502, {_NO_ANSWER: error.kind})

    async def _accept(self, request: Request) -> Response:
        """204 once the message is this runtime's, 404 if its app does not subscribe, 500 if it was not kept."""
        pubsub, _, topic = request.target.removeprefix(_MESSAGES).partition("/")
        try:
            name = unquote(pubsub), unquote(topic)
            taken = await self._blocks.broker.accept_forwarded(self._app_id, name, request.body)
        except TransientError:
            return Response(500)
        return NO_CONTENT if taken else Response(404)


async def _answer_for(hub_of: Callable[[str], TaskHub], request: Request) -> Response:
    """What this runtime's own hub of the app in the path answers; 404 for no call of a hub."""
    app_id, _, path = request.target.removeprefix(HUB).partition("/")
    call = _CALLS.get(path)
    if call is None:
        return Response(404)
    try:
        answer = await hub_of(unquote(app_id)).call(call, _without_router(call.request.FromString(request.body)))
    except RpcFault as fault:
        return Response(FAULT, {}, json.dumps({"code": fault.code.name, "details": fault.details}).encode())
    return Response(200, {}, answer.SerializeToString())


def _without_router(request: Any) -> Any:
    """It has arrived: the path says of which app it is."""
    if "router" in request.DESCRIPTOR.fields_by_name:
        request.ClearField("router")
    return request
