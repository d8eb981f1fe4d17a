"""A whole system on real Dapr: its stores, placement, scheduler, both services and a sidecar for each."""

import json
import os
import secrets
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.dapr import commands, postgresql
from tools.dapr.layout import HOST, Layout, Store, taken_port
from tools.dapr.process import Command, Process, start

_PATIENCE_S = 90.0
_PAUSE_S = 0.1
_ASK_S = 5.0
_STORE_FILES = {Store.POSTGRESQL: Path(__file__).with_name("statestore-postgresql.yaml")}
# Each write is on disk before it is acknowledged: what a service was told to be stored must outlive a power cut.
_REDIS_CONFIG = """\
port {port}
bind {host}
requirepass {password}
dir {folder}
appendonly yes
appendfsync always
save ""
"""


class SystemFailedError(Exception):
    """A process ended, or did not become ready; the text names it and its log."""


class StoppedError(Exception):
    """The system was told to stop while it started."""


@dataclass(slots=True)
class DaprSystem:
    """The processes of a system in `layout`, by name.

    `settings`: environment of the services beyond this process's; `own_settings`: of one of them, by its name. `apps`:
    where uvicorn finds an app that takes a service's place.
    """

    layout: Layout
    settings: Mapping[str, str] = field(default_factory=dict)
    own_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    apps: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 10.0
    told: Callable[[Process], None] = lambda _: None
    stopping: threading.Event = field(default_factory=threading.Event)
    processes: dict[str, Process] = field(default_factory=dict)
    _password: str = ""

    def start(self) -> None:
        """Start everything and wait until turns can run.

        Raises SystemFailedError, MissingRedisError, MissingPostgreSQLError, or StoppedError if `stopping` is set
        meanwhile; what it started runs until `stop`.
        """
        for name in self.stores:
            self.command_of(name)  # refuses before anything is started
        port = taken_port(self.layout.ports)
        if port is not None:
            raise SystemFailedError(f"port {port} is taken: stop the program that listens on it")
        self._prepare_folder()
        services = self.layout.ports.services
        for name in self._infrastructure():
            self.begin(name)
        for name in self._infrastructure():
            self.wait_for(name)
        for name in services:
            self.begin(name)
        # One after the other: two sidecars that make the file of names at the same instant lock one another out.
        for name in services:
            self.restart(f"{name}-sidecar")
        for name in services:
            self.wait_for(name)

    @property
    def stores(self) -> tuple[str, ...]:
        """The processes that keep state and messages."""
        return ("redis",) if self.layout.store is Store.REDIS else ("redis", str(self.layout.store))

    def _infrastructure(self) -> tuple[str, ...]:
        return (*self.stores, "placement", "scheduler")

    def begin(self, name: str) -> None:
        """Start the process `name`, without waiting for it."""
        self.processes[name] = start(self.command_of(name), self.layout.logs, self.layout.folder)
        self.told(self.processes[name])

    def wait_for(self, name: str) -> None:
        """Return once the process `name` does its work. Raises SystemFailedError if it ends or takes too long."""
        process = self.processes[name]
        give_up_at = time.monotonic() + _PATIENCE_S
        while not self._is_ready(name):
            self.check()
            if time.monotonic() > give_up_at:
                raise SystemFailedError(f"{name} is not ready after {_PATIENCE_S:g} s; its log is {process.log}")
            if self.stopping.wait(_PAUSE_S):
                raise StoppedError

    def check(self) -> None:
        """Start a sidecar again that its service has ended, since it was stuck (`everturn.dapr.sidecar`).

        Raises SystemFailedError if another process has ended by itself.
        """
        for name, process in [*self.processes.items()]:
            if process.exit_code == 0 and name.endswith("-sidecar"):
                self.begin(name)
            elif process.has_ended:
                raise SystemFailedError(f"{name} has ended; its log is {process.log}:\n{process.last_lines()}")

    def kill(self, name: str) -> None:
        """End the process `name` as `kill -9` does."""
        self.processes.pop(name).kill()

    def end(self, name: str) -> None:
        """End the process `name` gently."""
        self.processes.pop(name).stop()

    def restart(self, name: str) -> None:
        """Start the process `name` that was ended, and wait until it does its work."""
        self.begin(name)
        self.wait_for(name)

    def stop(self) -> None:
        """End every process, the services first. Nothing is left, whatever happens on the way."""
        try:
            for name in self._stop_order():
                if name in self.processes:
                    self.processes[name].stop()
        finally:
            for process in self.processes.values():
                process.kill()
            self.processes.clear()

    def _stop_order(self) -> list[str]:
        """Sidecars end after their services, so that a step that finishes can still tell its workflow."""
        services = sorted(self.layout.ports.services)
        return [*services, *(f"{name}-sidecar" for name in services), *reversed(self._infrastructure())]

    def _prepare_folder(self) -> None:
        folder = self.layout.folder
        for each in (folder, self.layout.logs, folder / "redis"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = folder / "redis.password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24), "utf-8")
        self._password = secret.read_text("utf-8")
        redis_config = folder / "redis.conf"
        redis_config.touch(mode=0o600)
        redis_config.write_text(
            _REDIS_CONFIG.format(
                port=self.layout.ports.redis, host=HOST, password=self._password, folder=folder / "redis"
            ),
            "utf-8",
        )
        self.layout.names.unlink(missing_ok=True)  # of sidecars that are gone
        if self.layout.store is not Store.REDIS:
            shutil.copytree(self.layout.components, self.layout.resources, dirs_exist_ok=True)
            shutil.copyfile(_STORE_FILES[self.layout.store], self.layout.resources / "statestore.yaml")
            postgresql.prepare(self.layout, self._password)

    def command_of(self, name: str) -> Command:
        """How the process `name` is started."""
        match name:
            case "redis":
                return commands.redis(self.layout)
            case "postgresql":
                return postgresql.command(self.layout)
            case "placement":
                return commands.placement(self.layout)
            case "scheduler":
                return commands.scheduler(self.layout)
            case _ if name in self.layout.ports.services:
                settings = {**self.settings, **self.own_settings.get(name, {})}
                return commands.service(self.layout, name, settings, self.stop_s, self.apps.get(name))
            case _:
                return commands.sidecar(self.layout, name.removesuffix("-sidecar"), self.settings_of_sidecars())

    def settings_of_sidecars(self) -> Mapping[str, str]:
        """The environment of a sidecar: where the stores are, and the settings, for the tokens in them."""
        stores = {"REDIS_HOST": f"{HOST}:{self.layout.ports.redis}", "REDIS_PASSWORD": self._password}
        if self.layout.store is Store.POSTGRESQL:
            stores["POSTGRESQL_CONNECTION"] = postgresql.connection_string(self.layout, self._password)
        return {**self.settings, **stores}

    def _is_ready(self, name: str) -> bool:
        ports = self.layout.ports
        match name:
            case "redis":
                return _redis_answers(ports.redis, self._password)
            case "postgresql":
                return postgresql.answers(self.layout)
            case "placement":
                return _answers(ports.placement.health, "/healthz")
            case "scheduler":
                return _answers(ports.scheduler.health, "/healthz")
            case _ if name in ports.services:
                return _answers(ports.services[name].app, "/readyz")
            case _:
                return self._sidecar_runs_workflows(ports.services[name.removesuffix("-sidecar")].http)

    def _sidecar_runs_workflows(self, port: int) -> bool:
        """Healthy, and its service's workflow worker has connected to it."""
        token = self.settings.get("DAPR_API_TOKEN", os.environ.get("DAPR_API_TOKEN", ""))
        headers = {"dapr-api-token": token} if token else {}
        if not _answers(port, "/v1.0/healthz"):
            return False
        metadata = _get(port, "/v1.0/metadata", headers)
        if metadata is None:
            return False
        told = json.loads(metadata)
        runs = told.get("workflows", {}).get("connectedWorkers", 0) > 0
        return runs and bool(told.get("actorRuntime", {}).get("hostReady"))


def _answers(port: int, path: str) -> bool:
    return _get(port, path, {}) is not None


def _get(port: int, path: str, headers: Mapping[str, str]) -> bytes | None:
    """The body of a good answer; None for every other answer, and for none."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", headers=dict(headers))
    try:
        # No proxy of the environment: this is loopback.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_ASK_S) as response:
            body: bytes = response.read()
            return body
    except (OSError, urllib.error.URLError):
        return None


def _redis_answers(port: int, password: str) -> bool:
    """Whether Redis takes the password and has loaded its data (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    try:
        with socket.create_connection((HOST, port), timeout=_ASK_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return connection.recv(256).endswith(b"+PONG\r\n")
    except OSError:
        return False
