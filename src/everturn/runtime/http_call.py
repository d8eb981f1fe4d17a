"""What a handler of Dapr's HTTP API is given: whose sidecar it is, and the call."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from everturn.runtime.channels import AppChannels
from everturn.runtime.clock import Clock
from everturn.runtime.components import Components
from everturn.runtime.configuration import NO_CONFIGURATION, Configuration
from everturn.runtime.dapr_errors import DaprError, malformed
from everturn.runtime.invocation_policies import InvocationPolicies
from everturn.runtime.pubsub import Broker
from everturn.runtime.secrets import SecretStore, open_secret_store
from everturn.runtime.state import StateFile, StateStore
from everturn.runtime.store.database import Database
from everturn.runtime.task_hub import TaskHub
from everturn.runtime.workflow_api import WorkflowApi
from everturn.sidecar.wire import Request, Response

NO_CONTENT = Response(204)
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class BuildingBlocks:
    """What all apps of a runtime share. `secret_stores`: by component name."""

    state: StateFile
    components: Components
    channels: AppChannels
    broker: Broker
    secret_stores: Mapping[str, SecretStore]
    policies: InvocationPolicies
    configuration: Configuration = NO_CONFIGURATION

    @property
    def database(self) -> Database:
        return self.state.database

    @property
    def clock(self) -> Clock:
        return self.state.clock

    @classmethod
    def over(
        cls,
        database: Database,
        clock: Clock,
        components: Components,
        configuration: Configuration = NO_CONFIGURATION,
    ) -> "BuildingBlocks":
        """All that `components` ask for. Raises StartError where a secrets file is missing or wrong."""
        opened = {
            name: open_secret_store(component)
            for name, component in components.components.items()
            if component.type.startswith("secretstores.")
        }
        return cls(
            StateFile(database, clock),
            components,
            AppChannels(),
            Broker(database, clock, components),
            {name: store for name, store in opened.items() if store is not None},
            InvocationPolicies(components, clock),
            configuration,
        )


@dataclass(slots=True)
class OwnMetadata:
    """What a sidecar tells of itself beyond its components: what it was told to (`extended`), until it ends, and how
    many streams of workflow work are open; None where the worker is in the process."""

    extended: dict[str, str] = field(default_factory=dict)
    connected_workers: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class AppView:
    """The building blocks as one app sees them. `task_hub` is None where no workflows are run."""

    app_id: str
    blocks: BuildingBlocks
    task_hub: TaskHub | None = None
    own: OwnMetadata = field(default_factory=OwnMetadata)
    _stores: dict[str, StateStore] = field(default_factory=dict)

    def state_store(self, name: str) -> StateStore:
        """Raises DaprError (400) where there is none of that name for this app."""
        store = self._stores.get(name)
        if store is None:
            component = self.blocks.components.find("state.", name, self.app_id)
            if component is None:
                raise DaprError(400, "ERR_STATE_STORE_NOT_FOUND", f"state store {name} is not found")
            store = StateStore(self.blocks.state, component, self.app_id)
            self._stores[name] = store
        return store

    def workflow_api(self) -> WorkflowApi:
        """Raises DaprError (500) where no workflows are run."""
        if self.task_hub is None:
            raise DaprError(500, "ERR_ACTOR_RUNTIME_NOT_FOUND", "no workflows are run here")
        return WorkflowApi(self.task_hub)

    def secret_store(self, name: str) -> SecretStore:
        """Raises DaprError (500 without any store, 401 without this one) where there is none for this app."""
        if not self.blocks.secret_stores:
            raise DaprError(500, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")
        store = self.blocks.secret_stores.get(name)
        if store is None or self.blocks.components.find("secretstores.", name, self.app_id) is None:
            raise DaprError(401, "ERR_SECRET_STORE_NOT_FOUND", f"failed finding secret store with key {name}")
        return store


@dataclass(frozen=True, slots=True)
class Call:
    """A request, with what its route's pattern found (still percent-encoded) and its query's `metadata.*`."""

    request: Request
    parts: Mapping[str, str]
    metadata: Mapping[str, str]

    def part(self, name: str) -> str:
        """Decoded. Raises DaprError (400) where it is not UTF-8."""
        try:
            return unquote(self.parts[name], errors="strict")
        except UnicodeDecodeError as error:
            raise malformed(f"{name} is not UTF-8") from error


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, JSON, json.dumps(value).encode())
