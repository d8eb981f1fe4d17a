"""The building blocks of a runtime, and what one app sees of them."""

from collections.abc import Callable, Mapping
from typing import Protocol

from everturn.runtime.clock import Clock
from everturn.runtime.database.database import Database
from everturn.runtime.errors import DaprError
from everturn.runtime.invocation.invoke import AppChannel, AppChannels, InvocationPolicies, Invoker
from everturn.runtime.pubsub.broker import Broker
from everturn.runtime.resources.components import Components
from everturn.runtime.resources.configuration import NO_CONFIGURATION, Configuration
from everturn.runtime.secrets.store import AppSecrets, open_secret_stores
from everturn.runtime.state.store import STATE_STORES, AppState, OpenStateStore, open_state_store
from everturn.runtime.workflow.management_api import WorkflowApi
from everturn.runtime.workflow.rpc import Hub

# What this runtime is compatible with.
DAPR_VERSION = "1.18.0"
# Dapr's default of --max-body-size.
MAX_BODY_BYTES = 4 * 1024 * 1024


class Peers(Protocol):
    """The other runtimes, if there are any."""

    def find(self, app_id: str) -> AppChannel | None:
        """The way to an app of another runtime, None if there never was one."""
        ...

    async def look(self) -> None:
        """Read which runtimes there are and what they subscribe to. Raises TransientError if the disk refuses."""
        ...


class BuildingBlocks:
    """What all apps of a runtime share. `state_stores` and `secret_stores`: by component name."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        components: Components,
        configuration: Configuration = NO_CONFIGURATION,
        *,
        peers: Peers | None = None,
        state_stores: Mapping[str, OpenStateStore] = STATE_STORES,
    ) -> None:
        """All that `components` ask for. `state_stores`: by component type, what opens a store of it.

        Raises StartError if a secrets file is missing or wrong.
        """
        self.database = database
        self.clock = clock
        self.components = components
        self.configuration = configuration
        self.channels = AppChannels(elsewhere=peers.find if peers is not None else None)
        self.broker = Broker(database, clock, components, peers.look if peers is not None else None)
        self.invoker = Invoker(self.channels, InvocationPolicies(components, clock))
        self.secret_stores = open_secret_stores(components)
        self.state_stores = {
            item.name: open_state_store(item, database, clock, state_stores) for item in components.of_kind("state.")
        }

    async def sweep(self) -> int:
        """Give back the space of state whose time is over; how many keys there were. Raises TransientError."""
        return sum([await store.sweep() for store in self.state_stores.values()])


class AppView:
    """The building blocks as one app sees them. `task_hub` is None if no workflows are run. `is_up`: the app listens.

    `extended`: metadata that the app gave, kept until the sidecar ends. `connected_workers`: how many streams of
    workflow work are open, None if the worker is in the process.
    """

    def __init__(self, app_id: str, blocks: BuildingBlocks, task_hub: Hub | None = None) -> None:
        self.app_id = app_id
        self.blocks = blocks
        self.task_hub = task_hub
        self.is_up = True
        self.extended: dict[str, str] = {}
        self.connected_workers: Callable[[], int] | None = None
        self.secrets = AppSecrets(app_id, blocks.secret_stores, blocks.components, blocks.configuration)

    def state(self, name: str) -> AppState:
        """The state of the component `name`. Raises DaprError (400) if this app has none of that name."""
        component = self.blocks.components.find("state.", name, self.app_id)
        if component is None:
            raise DaprError(400, "ERR_STATE_STORE_NOT_FOUND", f"state store {name} is not found")
        return AppState(self.blocks.state_stores[name], component, self.app_id, self.blocks.database)

    def workflow_api(self) -> WorkflowApi:
        """Raises DaprError (500) if no workflows are run."""
        if self.task_hub is None:
            raise DaprError(500, "ERR_ACTOR_RUNTIME_NOT_FOUND", "no workflows are run here")
        return WorkflowApi(self.task_hub)
