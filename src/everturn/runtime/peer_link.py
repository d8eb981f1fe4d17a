"""Between two runtimes: requests to another's socket, and what is answered there."""

from collections.abc import Callable
from urllib.parse import quote, unquote

import httpx2

from everturn.errors import TransientError
from everturn.runtime.channels import AppChannels
from everturn.runtime.http_call import NO_CONTENT
from everturn.runtime.peer_hub import HUB, answer_for
from everturn.runtime.peer_worker import ACTIVITY, TURN, do_work
from everturn.runtime.peers import Peer
from everturn.runtime.pubsub import Broker
from everturn.runtime.workflows import WorkflowEngine
from everturn.sidecar.wire import Request, Response

_INVOKE = "/invoke"
_MESSAGES = "/messages/"
# On an answer that the runtime gave because its app gave none.
_NO_ANSWER = "everturn-no-answer"
_TIMEOUT_S = 300.0
# How much is under way at once is decided where it begins.
_NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
_OF_THE_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def inbox_route(pubsub: str, topic: str) -> str:
    """Where another runtime takes messages of a topic."""
    return f"{_MESSAGES}{quote(pubsub, safe='')}/{quote(topic, safe='')}"


class PeerTransport:
    """A `Transport` to another runtime's socket, wherever that is at the moment; `to_app`: through it to its app.

    `timeout_s`: seconds for an answer, None where work may take as long as it takes.
    """

    def __init__(self, find: Callable[[], Peer | None], *, to_app: bool, timeout_s: float | None = _TIMEOUT_S) -> None:
        self._find = find
        self._timeout_s = timeout_s
        self._prefix = _INVOKE if to_app else ""
        self._socket: str | None = None
        self._client: httpx2.AsyncClient | None = None

    async def send(self, request: Request) -> Response:
        client = await self._connected()
        try:
            response = await client.request(
                request.method,
                self._prefix + request.target,
                headers={name: value for name, value in request.headers.items() if name != "content-length"},
                content=request.body,
            )
        except httpx2.TimeoutException as error:
            raise TransientError("no answer from the app's runtime in time", kind="timeout") from error
        except httpx2.TransportError as error:
            raise TransientError("cannot reach the app's runtime", kind="unreachable") from error
        if _NO_ANSWER in response.headers:
            raise TransientError("the app's runtime cannot reach it", kind=response.headers[_NO_ANSWER])
        headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_TRANSFER}
        return Response(response.status_code, headers, response.content)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _connected(self) -> httpx2.AsyncClient:
        peer = self._find()
        if peer is None or peer.socket is None:
            raise TransientError("the app's runtime is not running", kind="unreachable")
        if self._client is None or self._socket != peer.socket:
            await self.close()
            transport = httpx2.AsyncHTTPTransport(uds=peer.socket, trust_env=False, limits=_NO_LIMITS)
            self._client = httpx2.AsyncClient(transport=transport, base_url="http://peer", timeout=self._timeout_s)
            self._socket = peer.socket
        return self._client


class PeerFront:
    """What this runtime answers to others: requests for its app, messages and workflow work that they have for it."""

    def __init__(self, app_id: str, channels: AppChannels, broker: Broker, engine: WorkflowEngine) -> None:
        self._app_id = app_id
        self._channels = channels
        self._broker = broker
        self._engine = engine

    async def handle(self, request: Request) -> Response:
        if request.target.startswith(_INVOKE + "/"):
            return await self._invoke(request)
        if request.target.startswith(_MESSAGES) and request.method == "POST":
            return await self._take_in(request)
        if request.target in (TURN, ACTIVITY):
            worker = self._engine.worker_of(self._app_id)
            return Response(503) if worker is None else await do_work(worker, request)
        if request.target.startswith(HUB):
            return await answer_for(self._engine.task_hub, request)
        return Response(404)

    async def _invoke(self, request: Request) -> Response:
        channel = self._channels.by_id.get(self._app_id)
        if channel is None:
            return Response(502, {_NO_ANSWER: "unreachable"})
        target = request.target.removeprefix(_INVOKE)
        try:
            return await channel.send(Request(request.method, target, request.headers, request.body))
        except TransientError as error:
            return Response(502, {_NO_ANSWER: error.kind})

    async def _take_in(self, request: Request) -> Response:
        """204 once the message is this runtime's, 404 where its app does not subscribe, 500 where it was not kept."""
        pubsub, _, topic = request.target.removeprefix(_MESSAGES).partition("/")
        try:
            taken = await self._broker.take_in(self._app_id, (unquote(pubsub), unquote(topic)), request.body)
        except TransientError:
            return Response(500)
        return NO_CONTENT if taken else Response(404)
