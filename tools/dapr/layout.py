"""Where the processes of a Dapr system listen and keep what they keep: ports on loopback, one folder."""

import socket
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path

HOST = "127.0.0.1"


class Store(StrEnum):
    """Where a system keeps its state. Its messages are in Redis in any case."""

    REDIS = "redis"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class SidecarPorts:
    """Ports of one service and of its sidecar."""

    app: int
    http: int
    grpc: int
    internal: int
    metrics: int


@dataclass(frozen=True, slots=True)
class SchedulerPorts:
    """Ports of the scheduler and of the etcd in it."""

    grpc: int
    health: int
    metrics: int
    etcd_client: int
    etcd_peer: int


@dataclass(frozen=True, slots=True)
class PlacementPorts:
    """Ports of placement; `raft` is for other placements, of which there are none."""

    grpc: int
    health: int
    metrics: int
    raft: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port that a system listens on. `more_chat`: of further replicas of the chat service."""

    redis: int
    postgresql: int
    placement: PlacementPorts
    scheduler: SchedulerPorts
    chat: SidecarPorts
    memory: SidecarPorts
    more_chat: tuple[SidecarPorts, ...] = ()

    @property
    def services(self) -> Mapping[str, SidecarPorts]:
        """By the name of the service's process: `chat`, `memory`, and `chat-2` and so on for further replicas."""
        more = {f"chat-{number}": ports for number, ports in enumerate(self.more_chat, start=2)}
        return {"memory": self.memory, "chat": self.chat, **more}


def usual_ports(chat: int, memory: int) -> Ports:
    """Dapr's usual ports (docs/reference/settings.md), and Redis and PostgreSQL if no other is expected."""
    return Ports(
        redis=6390,
        postgresql=6391,
        placement=PlacementPorts(grpc=50005, health=8091, metrics=9191, raft=8201),
        scheduler=SchedulerPorts(grpc=50006, health=8092, metrics=9192, etcd_client=2379, etcd_peer=2380),
        chat=SidecarPorts(app=chat, http=3500, grpc=50001, internal=50011, metrics=9193),
        memory=SidecarPorts(app=memory, http=3501, grpc=50002, internal=50012, metrics=9194),
    )


def free_ports(chat_replicas: int = 1) -> Ports:
    """Ports that nobody listens on now."""
    found = iter(_free(16 + 5 * chat_replicas))

    def take(count: int) -> list[int]:
        return [next(found) for _ in range(count)]

    return Ports(
        redis=next(found),
        postgresql=next(found),
        placement=PlacementPorts(*take(4)),
        scheduler=SchedulerPorts(*take(5)),
        chat=SidecarPorts(*take(5)),
        memory=SidecarPorts(*take(5)),
        more_chat=tuple(SidecarPorts(*take(5)) for _ in range(chat_replicas - 1)),
    )


def taken_port(ports: Ports) -> int | None:
    """A port of `ports` that another program listens on; None if all are free."""
    for port in _flat(astuple(ports)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                return port
    return None


def _flat(values: tuple[object, ...]) -> list[int]:
    found: list[int] = []
    for value in values:
        if isinstance(value, tuple):
            found += _flat(value)
        elif isinstance(value, int):
            found.append(value)
    return found


def _free(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(frozen=True, slots=True)
class Layout:
    """A system's folder and ports; `binaries` holds daprd, placement and scheduler, `components` the Dapr files.

    With another `store` than Redis, its file takes the place of `components/statestore.yaml`.
    """

    folder: Path
    ports: Ports
    binaries: Path
    components: Path
    store: Store = Store.REDIS

    @property
    def resources(self) -> Path:
        """The Dapr files that the sidecars read."""
        return self.components if self.store is Store.REDIS else self.folder / "components"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def names(self) -> Path:
        """The file in which sidecars find one another."""
        return self.folder / "names.db"
