"""The command lines of a system's processes. Everything listens on loopback only."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from tools.dapr.layout import HOST, Layout
from tools.dapr.process import Command

# Without it a sidecar announces the machine's own network address.
_LOOPBACK = {"DAPR_HOST_IP": HOST}
# A message and a reply of a mebibyte each, where every character takes a six-byte escape; Dapr's default is 4 MiB.
_MAX_BODY = "16Mi"
# Ids of 256 characters, percent-encoded, do not fit into Dapr's default of 4 KiB for a request's head.
_MAX_HEAD = "64Ki"

_CONFIGS = Path(__file__).parent
_PLACEMENT_ID = "dapr-placement-0"
_SCHEDULER_ID = "dapr-scheduler-server-0"


class MissingRedisError(Exception):
    """There is no Redis to start."""

    def __init__(self) -> None:
        super().__init__(
            "Redis is missing: install it (on Debian or Ubuntu: apt install redis-server), then run make again"
        )


def redis(layout: Layout) -> Command:
    server = shutil.which("redis-server")
    if server is None:
        raise MissingRedisError
    return Command(
        "redis", [server, str(layout.folder / "redis.conf")], os.environ.copy(), f"{HOST}:{layout.ports.redis}"
    )


def placement(layout: Layout) -> Command:
    ports = layout.ports.placement
    arguments = [
        str(layout.binaries / "placement"),
        *("--listen-address", HOST, "--port", str(ports.grpc)),
        *("--healthz-listen-address", HOST, "--healthz-port", str(ports.health)),
        *("--metrics-listen-address", HOST, "--metrics-port", str(ports.metrics)),
        *("--id", _PLACEMENT_ID, "--initial-cluster", f"{_PLACEMENT_ID}={HOST}:{ports.raft}"),
    ]
    return Command("placement", arguments, {**os.environ, **_LOOPBACK}, f"{HOST}:{ports.grpc}")


def scheduler(layout: Layout) -> Command:
    ports = layout.ports.scheduler
    arguments = [
        str(layout.binaries / "scheduler"),
        *("--listen-address", HOST, "--port", str(ports.grpc)),
        *("--healthz-listen-address", HOST, "--healthz-port", str(ports.health)),
        *("--metrics-listen-address", HOST, "--metrics-port", str(ports.metrics)),
        *("--override-broadcast-host-port", f"{HOST}:{ports.grpc}"),
        *("--id", _SCHEDULER_ID, "--etcd-initial-cluster", f"{_SCHEDULER_ID}=http://{HOST}:{ports.etcd_peer}"),
        *("--etcd-client-port", str(ports.etcd_client), "--etcd-client-listen-address", HOST),
        *("--etcd-data-dir", str(layout.folder / "scheduler"), "--etcd-initial-election-tick-advance"),
        *("--identity-directory-write", str(layout.folder / "scheduler-identity")),
    ]
    return Command("scheduler", arguments, {**os.environ, **_LOOPBACK}, f"{HOST}:{ports.grpc}")


def sidecar(layout: Layout, name: str, secrets: Mapping[str, str]) -> Command:
    """The sidecar of the service `name` (`chat`, `memory`, `chat-2` and so on)."""
    ports = layout.ports.services[name]
    arguments = [
        str(layout.binaries / "daprd"),
        *("--app-id", MEMORY_APP_ID if name == "memory" else CHAT_APP_ID, "--app-port", str(ports.app)),
        *("--app-channel-address", HOST, "--dapr-listen-addresses", HOST),
        *("--dapr-http-port", str(ports.http), "--dapr-grpc-port", str(ports.grpc)),
        *("--dapr-internal-grpc-listen-address", HOST, "--dapr-internal-grpc-port", str(ports.internal)),
        *("--metrics-listen-address", HOST, "--metrics-port", str(ports.metrics)),
        *("--placement-host-address", f"{HOST}:{layout.ports.placement.grpc}"),
        *("--scheduler-host-address", f"{HOST}:{layout.ports.scheduler.grpc}"),
        *("--resources-path", str(layout.resources)),
        *("--config", str(_CONFIGS / "config.yaml"), "--config", str(_CONFIGS / "names.yaml")),
        *("--max-body-size", _MAX_BODY, "--read-buffer-size", _MAX_HEAD),
    ]
    environment = {**os.environ, **_LOOPBACK, **secrets, "EVERTURN_DAPR_NAMES": str(layout.names)}
    return Command(f"{name}-sidecar", arguments, environment, f"{HOST}:{ports.http}")


def service(layout: Layout, name: str, settings: Mapping[str, str], stop_s: float, app: str | None = None) -> Command:
    """The service `name` (`chat`, `memory`, `chat-2` and so on), as its users start it beside a sidecar.

    `settings` win over the ports that the layout has. `app`: where uvicorn finds another app to take its place.
    """
    ports = layout.ports.services[name]
    module = "memory" if name == "memory" else "chat"
    arguments = [sys.executable, "-m", "uvicorn", app or f"everturn.{module}.app:app"]
    arguments += ["--host", HOST, "--port", str(ports.app), "--no-access-log"]
    sidecar_ports = {"DAPR_HTTP_PORT": str(ports.http), "DAPR_GRPC_PORT": str(ports.grpc)}
    environment = {**os.environ, **sidecar_ports, **settings}
    return Command(name, arguments, environment, f"http://{HOST}:{ports.app}", stop_s)
