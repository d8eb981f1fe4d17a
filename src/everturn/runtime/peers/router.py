"""The other runtimes of a data folder, as this one deals with them."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import grpc

from everturn.dapr.sdk.protocol import GetInstanceRequest
from everturn.dapr.wire import Request
from everturn.errors import TransientError
from everturn.runtime.clock import Clock, sleep
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.peers.folder import Peer, PeerFolder
from everturn.runtime.peers.link import ANSWER_WITHIN_S, FAULT, HUB, PeerTransport, inbox_route
from everturn.runtime.peers.peer_worker import PeerWorker
from everturn.runtime.pubsub.broker import Broker
from everturn.runtime.resources.components import Subscription, TopicName
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.runtime.workflow.rpc import GET, LIST_IDS, Hub, Req, Res, Rpc, RpcFault, unavailable
from everturn.runtime.workflow.task_hub import TaskHub
from everturn.runtime.workflow.worker import Worker

log = logging.getLogger(__name__)

# How soon a new subscription or a runtime that came back is noticed if nothing is published meanwhile.
_LOOK_EVERY_S = 1.0


class PeerHub:
    """The `Hub` of an app among several runtimes: it hands on what is not for its own one.

    A child of another app is kept by the runtime of its parent; its own app's clients find it all the same.
    """

    def __init__(self, own: TaskHub, peers: "PeerRouter") -> None:
        self._own = own
        self._peers = peers

    async def call(self, rpc: Rpc[Req, Res], request: Req) -> Res:
        if not self._peers.joined or rpc is LIST_IDS:
            return await self._own.call(rpc, request)
        router, own_id = getattr(request, "router", None), self._own.app_id
        app_id = own_id if router is None else str(router.targetAppID) or own_id
        if app_id != own_id:
            if not self._peers.has_been(app_id):
                how = f"start one: everturn runtime --app-id {app_id}"
                raise unavailable(f"no runtime of app {app_id!r} shares the data folder; {how}")
            return await self._ask(app_id, app_id, rpc, request)
        keeper = await self._keeper(getattr(request, "instanceId", ""))
        if keeper is None:
            return await self._own.call(rpc, request)
        return await self._ask(keeper, own_id, rpc, request)

    async def _keeper(self, instance_id: str) -> str | None:
        """The app whose runtime keeps an instance of this app; None if it is here, or nowhere."""
        if not instance_id or self._own.keeps(instance_id):
            return None
        asked = GetInstanceRequest(instanceId=instance_id)
        app_ids = self._peers.running()
        calls = [self._ask(app_id, self._own.app_id, GET, asked) for app_id in app_ids]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for app_id, answer in zip(app_ids, answers, strict=True):
            if not isinstance(answer, BaseException) and answer.exists:
                return app_id
        return None

    async def _ask(self, runtime: str, app_id: str, rpc: Rpc[Req, Res], request: Req) -> Res:
        """What the runtime of the app `runtime` answers as a hub of `app_id`."""
        message: Any = request
        target = f"{HUB}{quote(app_id, safe='')}/{rpc.method}"
        try:
            transport = self._peers.to_workflows(runtime)
            response = await transport.send(Request("POST", target, {}, message.SerializeToString()))
        except TransientError as error:
            raise unavailable(f"the runtime of app {runtime!r}: {error.message}") from error
        if response.status == FAULT:
            fault = json.loads(response.body)
            raise RpcFault(grpc.StatusCode[fault["code"]], fault["details"])
        if response.status != 200:
            raise unavailable(f"the runtime of app {runtime!r} did not answer: {response.status}")
        return cast(Res, cast(Any, rpc.response).FromString(response.body))


class PeerRouter:
    """The ways to other runtimes: to their apps, their topics and, as the engine's `Router`, their workflows.

    It is given to the runtime of `app_id` when that is made; from `start` to `stop` it deals with the others.
    """

    def __init__(self, folder: PeerFolder, clock: Clock) -> None:
        self.app_id = folder.app_id
        self._folder = folder
        self._clock = clock
        self._broker: Broker | None = None
        self._engine: WorkflowEngine | None = None
        self._socket: Path | None = None
        self._topics: frozenset[TopicName] = frozenset()
        self._known: dict[str, Peer] = {}
        self._workers: dict[str, PeerWorker] = {}
        self._transports: dict[tuple[str, bool, float | None], PeerTransport] = {}
        self._looking = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    # The engine's router

    def hub(self, own: TaskHub) -> Hub:
        return PeerHub(own, self)

    def worker(self, app_id: str) -> Worker | None:
        return self._workers.get(app_id)

    # What a hub has to know

    @property
    def joined(self) -> bool:
        """Whether this runtime deals with others now."""
        return self._watch is not None

    def has_been(self, app_id: str) -> bool:
        """Whether a runtime of the app ever was in the data folder."""
        return self._folder.find(app_id) is not None

    def running(self) -> list[str]:
        """The apps whose runtimes run now."""
        return [app_id for app_id, peer in self._folder.others().items() if peer.socket is not None]

    def to_workflows(self, app_id: str) -> PeerTransport:
        """Work takes as long as it takes, and so do those who wait for it."""
        return self._transport(app_id, to_app=False, timeout_s=None)

    # What the runtime does

    def left_socket(self) -> Path | None:
        """The socket of an earlier run that ended without a goodbye; nobody listens there any more."""
        own = self._folder.find(self.app_id)
        return Path(own.socket) if own is not None and own.socket is not None else None

    async def start(self, socket: Path, broker: Broker, engine: WorkflowEngine) -> None:
        """Announce `socket`, and begin to look around. Raises TransientError if the disk refuses."""
        self._broker, self._engine, self._socket = broker, engine, socket
        self._topics = broker.store.topics_of(self.app_id)
        self._folder.announce(socket, self._topics)
        await self.look()
        self._watch = asyncio.get_running_loop().create_task(self._look_for_ever(broker))

    async def stop(self) -> None:
        """Say goodbye. Messages of the others wait from now on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        if self._socket is not None:
            self._folder.announce(None, self._topics)  # as last announced: the database may be closed by now
        for transport in self._transports.values():
            await transport.close()

    def find(self, app_id: str) -> AppChannel | None:
        """The way to another app, None if no runtime of it ever was here."""
        return AppChannel(app_id, self._transport(app_id, to_app=True)) if self.has_been(app_id) else None

    async def look(self) -> None:
        """Read which runtimes there are and what they subscribe to. Raises TransientError if the disk refuses."""
        broker, engine = self._broker, self._engine
        if broker is None or engine is None:
            return
        async with self._looking:
            for app_id, peer in self._folder.others().items():
                before = self._known.get(app_id)
                if before == peer:
                    continue
                if before is None or before.topics != peer.topics:
                    await self._deliver_to(peer, broker)
                if before is None:
                    self._workers[app_id] = PeerWorker(app_id, self.to_workflows(app_id))
                    engine.wake(app_id)
                self._known[app_id] = peer
                if peer.socket is not None:
                    broker.app_is_back(app_id)

    async def _deliver_to(self, peer: Peer, broker: Broker) -> None:
        channel = AppChannel(peer.app_id, self._transport(peer.app_id, to_app=False))
        wanted = [Subscription(pubsub, topic, inbox_route(pubsub, topic)) for pubsub, topic in sorted(peer.topics)]
        await broker.set_subscriptions(channel, wanted, unclaimed_only=True)

    def _transport(self, app_id: str, *, to_app: bool, timeout_s: float | None = ANSWER_WITHIN_S) -> PeerTransport:
        way = (app_id, to_app, timeout_s)
        if way not in self._transports:
            self._transports[way] = PeerTransport(lambda: self._folder.find(app_id), to_app=to_app, timeout_s=timeout_s)
        return self._transports[way]

    def _announce(self, broker: Broker) -> None:
        topics = broker.store.topics_of(self.app_id)
        if topics != self._topics:
            self._folder.announce(self._socket, topics)
            self._topics = topics

    async def _look_for_ever(self, broker: Broker) -> None:
        while True:
            try:
                self._announce(broker)
                await self.look()
            except (TransientError, OSError) as error:
                log.warning("peers_not_seen", extra={"reason": type(error).__name__})
            except Exception:
                log.exception("peers_failed")
            await sleep(self._clock, _LOOK_EVERY_S)
