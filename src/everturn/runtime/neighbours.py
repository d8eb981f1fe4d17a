"""The other runtimes of a data folder, as this one deals with them."""

import asyncio
import logging
from pathlib import Path

from everturn.errors import TransientError
from everturn.runtime.asgi_front import as_asgi
from everturn.runtime.channels import AppChannel
from everturn.runtime.clock import wait_until
from everturn.runtime.components import Subscription
from everturn.runtime.http_call import BuildingBlocks
from everturn.runtime.peer_hub import OtherHubs
from everturn.runtime.peer_link import PeerFront, PeerTransport, inbox_route
from everturn.runtime.peer_worker import PeerWorker
from everturn.runtime.peers import Peer, PeerFolder
from everturn.runtime.topics import TopicName
from everturn.runtime.workflows import WorkflowEngine
from everturn.sidecar.asgi_transport import AsgiApp

log = logging.getLogger(__name__)

# How soon a new subscription or a runtime that came back is noticed where nothing is published meanwhile.
_LOOK_EVERY_S = 1.0
# A turn has its whole history with it; how much of that its worker can take is for the worker's own runtime to say.
_MAX_BODY_BYTES = 64 * 1024 * 1024


class Neighbours:
    """Calls other apps through their runtimes, takes messages there, and has their workflow code run. From `start` to
    `stop`.

    `asgi` is what this runtime answers to the others, to be served on the socket that `start` announces.
    """

    def __init__(
        self, folder: PeerFolder, app_id: str, blocks: BuildingBlocks, engine: WorkflowEngine, others: OtherHubs
    ) -> None:
        front = PeerFront(app_id, blocks.channels, blocks.broker, engine)
        self.asgi: AsgiApp = as_asgi(front, _MAX_BODY_BYTES)
        self._folder = folder
        self._app_id = app_id
        self._broker = blocks.broker
        self._clock = blocks.clock
        self._engine = engine
        self._others = others
        self._socket: Path | None = None
        self._topics: frozenset[TopicName] = frozenset()
        self._known: dict[str, Peer] = {}
        self._inboxes: dict[str, AppChannel] = {}
        self._apps: dict[str, AppChannel] = {}
        self._workflows: dict[str, PeerTransport] = {}
        self._looking = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        blocks.channels.elsewhere = self.find
        blocks.broker.before_publish = self.look
        others.reach = self._to_workflows
        others.known = self._running
        others.has_been = lambda other: folder.find(other) is not None

    def left_socket(self) -> Path | None:
        """The socket of an earlier run that ended without a goodbye; nobody listens there any more."""
        own = self._folder.find(self._app_id)
        return Path(own.socket) if own is not None and own.socket is not None else None

    async def start(self, socket: Path) -> None:
        """Announce `socket`, and begin to look around."""
        self._socket = socket
        self._topics = self._broker.store.topics_of(self._app_id)
        self._folder.announce(socket, self._topics)
        await self.look()
        self._watch = asyncio.get_running_loop().create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Say goodbye. Messages of the others wait from now on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._socket is not None:
            self._folder.announce(None, self._topics)  # as last announced: the database may be closed by now
        self._others.reach = None
        for channel in [*self._apps.values(), *self._inboxes.values()]:
            await channel.transport.close()
        for transport in self._workflows.values():
            await transport.close()

    def find(self, app_id: str) -> AppChannel | None:
        """The way to another app, None where no runtime of it ever was here."""
        if self._folder.find(app_id) is None:
            return None
        return self._apps.setdefault(app_id, self._channel(app_id, to_app=True))

    async def look(self) -> None:
        """Take note of who has come and what is subscribed to. Raises TransientError where the disk refuses."""
        async with self._looking:
            for app_id, peer in self._folder.others().items():
                before = self._known.get(app_id)
                if before == peer:
                    continue
                if before is None or before.topics != peer.topics:
                    await self._deliver_to(peer)
                if before is None:
                    self._engine.register(app_id, PeerWorker(app_id, self._to_workflows(app_id)))
                self._known[app_id] = peer
                if peer.socket is not None:
                    self._broker.app_is_back(app_id)

    async def _deliver_to(self, peer: Peer) -> None:
        channel = self._inboxes.setdefault(peer.app_id, self._channel(peer.app_id, to_app=False))
        wanted = [Subscription(pubsub, topic, inbox_route(pubsub, topic)) for pubsub, topic in sorted(peer.topics)]
        await self._broker.deliver(channel, wanted, unclaimed_only=True)

    def _running(self) -> list[str]:
        return [app_id for app_id, peer in self._folder.others().items() if peer.socket is not None]

    def _to_workflows(self, app_id: str) -> PeerTransport:
        """Work takes as long as it takes, and so do those who wait for it."""
        transport = self._workflows.get(app_id)
        if transport is None:
            transport = PeerTransport(lambda: self._folder.find(app_id), to_app=False, timeout_s=None)
            self._workflows[app_id] = transport
        return transport

    def _channel(self, app_id: str, *, to_app: bool) -> AppChannel:
        return AppChannel(app_id, PeerTransport(lambda: self._folder.find(app_id), to_app=to_app))

    def _announce(self) -> None:
        topics = self._broker.store.topics_of(self._app_id)
        if topics != self._topics:
            self._folder.announce(self._socket, topics)
            self._topics = topics

    async def _look_for_ever(self) -> None:
        while True:
            try:
                self._announce()
                await self.look()
            except (TransientError, OSError) as error:
                log.warning("neighbours_not_seen", extra={"reason": type(error).__name__})
            except Exception:
                log.exception("neighbours_failed")
            await wait_until(self._clock, self._clock.now() + _LOOK_EVERY_S)
