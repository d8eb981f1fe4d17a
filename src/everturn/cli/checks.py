"""What `everturn doctor` looks at. A check changes nothing and raises nothing: what it cannot find out is a finding."""

import asyncio
import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import apsw
import httpx2

from everturn.cli.banner import address
from everturn.cli.process import listen, who_may_call
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.dapr.client import DaprClient
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request, Response
from everturn.errors import EverturnError, SettingError, TerminalError, TransientError
from everturn.models.endpoint import Endpoint, endpoint_of
from everturn.models.faults import status_fault
from everturn.models.probe import ask_for_models
from everturn.models.providers import prepare_sdk
from everturn.runtime.database.database import DATABASE_FILE
from everturn.runtime.database.migrations import migrations
from everturn.runtime.lock import holder_of
from everturn.settings import Settings
from everturn.web.tokens import KeySet

Status = Literal["ok", "warning", "problem"]
STATUSES: tuple[Status, ...] = ("ok", "warning", "problem")

_HOST = "127.0.0.1"
_MIB = 1024 * 1024
_LITTLE_DISK, _NO_DISK = 1024 * _MIB, 64 * _MIB
_OTHERS = 0o077
_LIMIT_S = 3.0
# Tokens are refused, and answers look older or newer than they are, if clocks are further apart.
_MOST_SKEW_S = 30.0
_JUMP_S = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """`message` says what is, and what to do if that is no good."""

    name: str
    status: Status
    message: str


def versions() -> Finding:
    """Of what an error report needs."""
    parts = (
        f"everturn {version('everturn')}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"dapr {version('dapr')}",
        f"openai-agents {version('openai-agents')}",
        f"SQLite {apsw.sqlite_lib_version()}",
    )
    return Finding("versions", "ok", ", ".join(parts))


def folder(settings: Settings) -> Iterator[Finding]:
    """The data folder of the embedded runtime: who may read and write it, who has it, its disk and its database."""
    path = settings.data_dir
    shown = repr(str(path.resolve()))
    existing = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("folder", "problem", f"{shown} cannot be written to: make it writable or set EVERTURN_DATA_DIR")
        return
    free = shutil.disk_usage(existing).free
    yield disk(free)
    if not path.exists():
        yield Finding("folder", "ok", f"{shown} is made at the first start")
        return
    try:
        holder = holder_of(path)
        if path.stat().st_mode & _OTHERS:
            yield Finding("folder", "warning", f"others on this machine can open {shown}; the next start closes it")
        elif holder is not None:
            yield Finding("folder", "ok", f"{shown} is in use by process {holder}")
        else:
            yield Finding("folder", "ok", f"{shown} is free")
    except OSError as error:
        yield Finding("folder", "problem", f"{shown} cannot be read: {error.strerror}")
        return
    if (path / DATABASE_FILE).exists():
        yield _database(path / DATABASE_FILE)


def disk(free: int) -> Finding:
    """`free`: bytes that this user may still write."""
    left = f"{free // _MIB:,} MiB are free"
    if free < _NO_DISK:
        return Finding("disk", "problem", f"{left}: make room, or set EVERTURN_DATA_DIR to a folder of another disk")
    if free < _LITTLE_DISK:
        return Finding("disk", "warning", f"{left}: make room before it is full")
    return Finding("disk", "ok", left)


def _database(file: Path) -> Finding:
    newest = len(migrations())
    try:
        with contextlib.closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            found = int(connection.pragma("user_version"))
    except apsw.Error as error:
        how = "move it away and copy a backup back (docs/how-to/back-up.md)"
        return Finding("database", "problem", f"{str(file)!r} cannot be read ({type(error).__name__}): {how}")
    if found > newest:
        how = f"this release reads up to {newest}: start the release that wrote it, or a later one"
        return Finding("database", "problem", f"it has version {found}, {how}")
    brought = "" if found == newest else f"; the next start brings it to {newest}"
    return Finding("database", "ok", f"version {found}, {file.stat().st_size / _MIB:,.1f} MiB{brought}")


def ports(settings: Settings) -> Iterator[Finding]:
    """Both services' own: free, or whose."""
    for service, port in (("chat", settings.chat_port), ("memory", settings.memory_port)):
        name, setting = f"port {port}", f"EVERTURN_{service.upper()}_PORT"
        try:
            listen(settings.host, port, setting).close()
        except EverturnError as error:
            if _is_ours(settings.host, port):
                yield Finding(name, "ok", f"Everturn's {service} service answers there")
            else:
                owner = _owner_of(port)
                yield Finding(name, "problem", error.message + (f" ({owner} has it)" if owner else ""))
        else:
            yield Finding(name, "ok", f"free for the {service} service")


def callers(settings: Settings) -> Finding:
    """Who may call the services."""
    try:
        warning = who_may_call(settings)
    except SettingError as error:
        return Finding("callers", "problem", error.message)
    if warning:
        return Finding("callers", "warning", warning)
    who = {
        "none": "programs of this machine, as any user",
        "header": "users whom the proxy has signed in",
        "jwt": "users with a token",
    }
    return Finding("callers", "ok", f"{who[settings.auth]} (EVERTURN_AUTH is {settings.auth})")


async def identity_provider(settings: Settings) -> list[Finding]:
    """Whether the public keys can be had by which tokens are checked."""
    if settings.auth != "jwt" or settings.jwt_jwks is None:
        return []
    try:
        await KeySet(settings.jwt_jwks).key(None)
    except SettingError as error:
        return [Finding("identity provider", "problem", error.message)]
    except EverturnError as error:
        how = "check EVERTURN_JWT_JWKS, and the network if it is a URL"
        return [Finding("identity provider", "problem", f"{error.message}: {how}")]
    return [Finding("identity provider", "ok", "its keys can be read")]


def _is_ours(host: str, port: int) -> bool:
    try:
        welcome = httpx2.get(f"{address(host, port)}/", timeout=_LIMIT_S, trust_env=False)
        return "Welcome to the DACA" in str(welcome.json()["message"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return False


def _owner_of(port: int) -> str | None:
    """The process that listens on `port`, of what this user may see; only Linux says (proc(5))."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in sockets for link in (process / "fd").iterdir()):
                return f"process {process.name}, {(process / 'comm').read_text('utf-8').strip()!r},"
        except OSError:
            continue
    return None


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on `port`."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for _, local, _, state, *others in map(str.split, lines):
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                yield others[5]


class Sidecar:
    """Dapr's or `everturn runtime`'s, at the port of the settings: of services that run apart."""

    def __init__(self, settings: Settings) -> None:
        self._port = settings.dapr_http_port
        self._is_set = bool({"dapr_http_port", "dapr_grpc_port"} & settings.model_fields_set)
        token = settings.dapr_api_token
        headers = {"dapr-api-token": token.get_secret_value()} if token else {}
        self._transport = HttpTransport(f"http://{_HOST}:{self._port}", headers=headers)
        self._answer: Response | None = None
        self._never_asked: TerminalError | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_LIMIT_S):
                self._answer = await self._transport.send(Request("GET", "/v1.0/metadata"))
        except (TransientError, TimeoutError):
            pass
        except TerminalError as error:
            self._never_asked = error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    @property
    def client(self) -> DaprClient | None:
        """None if no sidecar answers."""
        return DaprClient(self._transport) if self._answer is not None else None

    async def findings(self) -> list[Finding]:
        at = f"{_HOST}:{self._port}"
        if self._never_asked is not None:
            return [Finding("sidecar", "problem", self._never_asked.message)]
        if self._answer is None and not self._is_set:
            return [Finding("sidecar", "ok", f"none at {at}; `everturn up` needs none")]
        if self._answer is None:
            return [Finding("sidecar", "problem", f"none at {at}: start `everturn runtime`, or Dapr's")]
        if self._answer.status == 401:
            return [Finding("sidecar", "problem", f"it refuses the token: set DAPR_API_TOKEN to that of {at}")]
        try:
            metadata = json.loads(self._answer.body)
            stores = [one["type"] for one in metadata["components"] if one["type"].startswith("state.")]
            found = self._described(at, str(metadata["id"]), metadata, stores)
        except (ValueError, KeyError, TypeError, AttributeError):
            return [Finding("sidecar", "problem", f"what answers at {at} is none: set DAPR_HTTP_PORT to its port")]
        return [found, *skew("sidecar", self._answer.headers.get("date"))]

    def _described(self, at: str, app_id: str, metadata: dict[str, Any], stores: list[str]) -> Finding:
        is_everturn = metadata.get("actorRuntime") is None
        about = (
            f"{'everturn runtime' if is_everturn else 'Dapr'} {metadata.get('runtimeVersion', '')} of app {app_id!r}"
        )
        if app_id not in (CHAT_APP_ID, MEMORY_APP_ID):
            how = f"the services are {CHAT_APP_ID!r} and {MEMORY_APP_ID!r}: set DAPR_HTTP_PORT to the port of theirs"
            return Finding("sidecar", "warning", f"{about} at {at}; {how}")
        if not stores:
            return Finding("sidecar", "problem", f"{about} at {at} has no state store: give it the folder components")
        return Finding("sidecar", "ok", f"{about} at {at}, state in {', '.join(stores)}")


async def model(settings: Settings, sidecar: Sidecar) -> list[Finding]:
    """The key and its place, and what the endpoint answers to a real request."""
    try:
        endpoint = endpoint_of(settings)
    except SettingError as error:
        return [Finding("model", "problem", error.message)]
    if endpoint is None:
        how = "set GEMINI_API_KEY or EVERTURN_MODEL_BASE_URL for a real model"
        return [Finding("model", "ok", f"the offline demo answers; {how}")]
    key, about_key = await _key(settings, endpoint, sidecar)
    if about_key.status == "problem":
        return [about_key]
    try:
        answer = await ask_for_models(endpoint, key)
    except EverturnError as error:
        how = "check EVERTURN_MODEL_BASE_URL, the network, HTTPS_PROXY and NO_PROXY"
        return [about_key, Finding("model", "problem", f"{error.message}, at {endpoint.origin}: {how}")]
    return [about_key, _answered(endpoint, answer.status, answer.models), *skew("model", answer.date)]


async def _key(settings: Settings, endpoint: Endpoint, sidecar: Sidecar) -> tuple[str | None, Finding]:
    if endpoint.api_key is not None:
        name = "GEMINI_API_KEY" if settings.model_base_url is None else "EVERTURN_MODEL_API_KEY"
        place = "the environment" if os.environ.get(name) else "the file .env"
        return endpoint.api_key, Finding("key", "ok", f"set, by {name} of {place}")
    wanted = settings.model_api_key_secret
    client = sidecar.client
    if client is not None:
        prepare_sdk()
        from everturn.models.openai_model import SecretKey  # noqa: PLC0415 - needs the SDK

        try:
            key = await SecretKey(client, wanted).read()
        except EverturnError as error:
            return None, Finding("key", "problem", f"the sidecar's secret store does not give it: {error.message}")
        if key is not None:
            return key, Finding("key", "ok", "set, by the sidecar's secret store")
    if wanted is not None:
        return None, Finding("key", "warning", f"the secret {wanted!r} is read once the sidecar runs")
    return None, Finding("key", "ok", "none is set; none is sent")


def _answered(endpoint: Endpoint, status: int, models: frozenset[str] | None) -> Finding:
    at = endpoint.origin
    if status in (404, 405):
        how = "check EVERTURN_MODEL_BASE_URL (it includes /v1 if the endpoint has one)"
        return Finding("model", "warning", f"{at} answers, but has no list of models ({status}): {how}")
    if not 200 <= status < 300:
        return Finding("model", "problem", f"{status_fault(status, {}).message}, at {at}")
    if models is None:
        return Finding("model", "warning", f"{at} answers, but with no list of models: check EVERTURN_MODEL_BASE_URL")
    if endpoint.model_name not in models:
        how = f"it is none of the {len(models)} that {at} lists: check EVERTURN_MODEL_NAME"
        return Finding("model", "warning", f"{endpoint.model_name!r} may not exist, {how}")
    return Finding("model", "ok", f"{at} answers and has {endpoint.model_name!r}")


def skew(whose: str, date: str | None) -> list[Finding]:
    """How far this machine's clock is from a header Date, if that is far."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return []
    if theirs.tzinfo is None:  # of a zone -0000 (RFC 5322 section 3.3): UTC
        theirs = theirs.replace(tzinfo=UTC)
    apart_s = (datetime.now(UTC) - theirs).total_seconds()
    if abs(apart_s) <= _MOST_SKEW_S:
        return []
    side = "ahead of" if apart_s > 0 else "behind"
    how = "set one of them right (NTP): tokens and times to live depend on it"
    return [Finding("clock", "warning", f"this machine's is {abs(apart_s):,.0f} s {side} that of the {whose}: {how}")]


def both_clocks() -> tuple[float, float]:
    return time.time(), time.monotonic()


def wall_clock(began: tuple[float, float]) -> Finding:
    """Whether the wall clock went as the monotonic one did since `began`."""
    now = both_clocks()
    jump_s = (now[0] - began[0]) - (now[1] - began[1])
    if abs(jump_s) > _JUMP_S:
        return Finding("clock", "warning", f"the wall clock jumped by {jump_s:,.0f} s meanwhile: see who sets it")
    return Finding("clock", "ok", f"{datetime.now(UTC).isoformat(timespec='seconds')}, and steady")
