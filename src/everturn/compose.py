"""Builds the embedded runtime and both services in one process: for `everturn up`, tests, simulator and benchmarks.

async with AsyncExitStack() as stack:
    system = await start_services(stack, settings, await open_runtime(stack, settings, wiring), wiring)
    … system.chat.app answers, system.runtime runs the turns …
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI

from everturn.chat.app import ChatParts
from everturn.chat.app import app_over as chat_app_over
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.dapr.client import SidecarClient
from everturn.dapr.wire import AsgiTransport, Request, Response, Transport
from everturn.dapr.workflows import Sidecar
from everturn.errors import TransientError
from everturn.memory.app import MemoryParts
from everturn.memory.app import app_over as memory_app_over
from everturn.runtime.clock import Clock, SystemClock
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.pubsub.deliveries import TOPIC_HEADER
from everturn.settings import Settings

if TYPE_CHECKING:
    from agents import Model

T = TypeVar("T")
Target = Literal["memory", "broker"]
# Seconds for the work of a runtime that nobody has stopped before: its services have ended.
_STOP_S = 1.0


class Faults:
    """Switches that take the memory service, or the message broker, away: as if it could not be reached.

    They keep their position when a system is composed again over them.
    """

    def __init__(self) -> None:
        self._away: dict[Target, bool] = {"memory": False, "broker": False}
        self._runtime: EmbeddedRuntime | None = None

    def set_away(self, target: Target, away: bool) -> None:
        """Take `target` away or bring it back; what waited for it is then tried at once."""
        self._away[target] = away
        if self._runtime is not None and not away:
            self._runtime.broker.app_is_back(MEMORY_APP_ID)

    def attach(self, runtime: EmbeddedRuntime) -> None:
        """From now on wake what waits in `runtime`."""
        self._runtime = runtime

    def check_publish(self) -> None:
        """Raises TransientError if the broker is away."""
        if self._away["broker"]:
            raise TransientError("the broker cannot be reached", kind="unreachable")

    def check_reach(self, request: Request) -> None:
        """Raises TransientError if the memory service is away, or the broker that delivers `request` to it."""
        if self._away["memory"] or (self._away["broker"] and TOPIC_HEADER in request.headers):
            raise TransientError(f"cannot reach app {MEMORY_APP_ID!r}", kind="unreachable")


@dataclass(frozen=True, slots=True)
class SwitchableTransport:
    """`inner`, for the requests at which `check` does not raise."""

    inner: Transport
    check: Callable[[Request], None]

    async def send(self, request: Request) -> Response:
        self.check(request)
        return await self.inner.send(request)

    async def close(self) -> None:
        await self.inner.close()


class SwitchableClient:
    """`inner`, which publishes only if `check` does not raise."""

    def __init__(self, inner: SidecarClient, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any], *, durable: bool = True) -> None:
        self._check()
        await self._inner.publish(pubsub, topic, event, durable=durable)


@dataclass(frozen=True, slots=True)
class SidecarOver:
    """`inner` with another client, and another transport."""

    inner: Sidecar
    client: SidecarClient
    transport: Transport

    @property
    def workflows(self) -> DaprWorkflowClient:
        return self.inner.workflows

    async def start(self, worker: WorkflowRuntime) -> None:
        await self.inner.start(worker)

    async def stop(self) -> None:
        await self.inner.stop()


def _unchanged(given: T) -> T:
    return given


@dataclass(frozen=True, slots=True)
class Wiring:
    """What differs from production, which has none of it.

    A model, if one is given, is used instead of that of the settings. `chat_sidecar` and `memory_sidecar` wrap what a
    service gets, `to_memory` what the runtime sends to the memory service; `chat_app` and `memory_app` make the HTTP
    applications. `components_dir`: folder of Dapr component files, None for what both services need.
    """

    clock: Clock = field(default_factory=SystemClock)
    components_dir: Path | None = None
    faults: Faults | None = None
    chat_model: "Model | None" = None
    summary_model: "Model | None" = None
    chat_sidecar: Callable[[Sidecar], Sidecar] = _unchanged
    memory_sidecar: Callable[[Sidecar], Sidecar] = _unchanged
    to_memory: Callable[[Transport], Transport] = _unchanged
    chat_app: Callable[[Settings, ChatParts], FastAPI] = chat_app_over
    memory_app: Callable[[Settings, MemoryParts], FastAPI] = memory_app_over


@dataclass(frozen=True, slots=True)
class Service(Generic[T]):
    """A running service: its HTTP application, what is behind it, and the way to it without a socket."""

    app: FastAPI
    parts: T
    transport: AsgiTransport


@dataclass(frozen=True, slots=True)
class System:
    """What has been started."""

    runtime: EmbeddedRuntime
    chat: Service[ChatParts]
    memory: Service[MemoryParts]


async def open_runtime(stack: AsyncExitStack, settings: Settings, wiring: Wiring) -> EmbeddedRuntime:
    """The runtime over the settings' data folder, which nobody else has from now on.

    It runs until `stack` ends. Raises StartError if the folder or a component file cannot be used.
    """
    runtime = await EmbeddedRuntime.open(settings.data_dir, options=runtime_options(settings, wiring))
    stack.push_async_callback(runtime.stop, _STOP_S)
    return runtime


def runtime_options(settings: Settings, wiring: Wiring) -> RuntimeOptions:
    """Those of a runtime in one process with its services: no socket, so no token of callers.

    The memory service knows it by APP_API_TOKEN, or by a token made here: others cannot pass for it.
    """
    token = settings.app_api_token
    return RuntimeOptions(
        components_dir=wiring.components_dir,
        app_api_token=token.get_secret_value() if token else secrets.token_urlsafe(),
        clock=wiring.clock,
        secrets=settings.secret_names,
    )


async def start_services(stack: AsyncExitStack, settings: Settings, runtime: EmbeddedRuntime, wiring: Wiring) -> System:
    """Both services on a `runtime` that is open; it begins to deliver when they are there to be reached.

    They run until `stack` ends, in the reverse order.
    """
    memory_transport, chat_transport = AsgiTransport(), AsgiTransport()
    to_memory, beside_chat = wiring.to_memory(memory_transport), runtime.add_app(CHAT_APP_ID, chat_transport)
    if wiring.faults is not None:
        wiring.faults.attach(runtime)
        to_memory = SwitchableTransport(to_memory, wiring.faults.check_reach)
        client = cast("SidecarClient", SwitchableClient(beside_chat.client, wiring.faults.check_publish))
        beside_chat = SidecarOver(beside_chat, client, beside_chat.transport)
    beside_memory = wiring.memory_sidecar(runtime.add_app(MEMORY_APP_ID, to_memory))
    memory_parts = MemoryParts(settings, beside_memory, wiring.summary_model, runtime.options.app_api_token)
    chat_parts = ChatParts.create(settings, wiring.chat_sidecar(beside_chat), wiring.chat_model)
    memory = Service(wiring.memory_app(settings, memory_parts), memory_parts, memory_transport)
    chat = Service(wiring.chat_app(settings, chat_parts), chat_parts, chat_transport)
    for app, transport in ((memory.app, memory_transport), (chat.app, chat_transport)):
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport.connect(app)
    await runtime.start()
    return System(runtime, chat, memory)
