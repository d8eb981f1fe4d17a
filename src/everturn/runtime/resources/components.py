"""Dapr's component files: components, subscriptions, and how often deliveries are retried.

The same files serve real Dapr (https://docs.dapr.io/reference/resource-specs/). Here every `pubsub.*` is a broker
in the runtime's database, and every `state.*` too unless the runtime has a store of its type.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everturn.runtime.resources.files import Resource, read_resources
from everturn.runtime.resources.resiliency import (
    DEFAULT_DELIVERY_RETRY,
    NO_POLICY,
    NO_RETRY,
    ResiliencyRules,
    RetryPolicy,
    TargetPolicy,
    read_rules,
)

log = logging.getLogger(__name__)

_USED_TYPES = ("state.", "pubsub.", "secretstores.local.")


# A topic of a pub/sub.
TopicName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Component:
    """A Component resource; with no `scopes` every app may use it."""

    name: str
    type: str
    version: str = "v1"
    metadata: Mapping[str, str] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()

    def is_for(self, app_id: str) -> bool:
        return not self.scopes or app_id in self.scopes


@dataclass(frozen=True, slots=True)
class Subscription:
    """Messages of `topic` go to `route` of an app; those that it will never take, to `dead_letter_topic`.

    `is_declared`: in a file, not by the app itself.
    """

    pubsub: str
    topic: str
    route: str
    dead_letter_topic: str | None = None
    scopes: frozenset[str] = frozenset()
    is_declared: bool = False

    @property
    def topic_name(self) -> TopicName:
        return self.pubsub, self.topic

    def is_for(self, app_id: str) -> bool:
        return not self.scopes or app_id in self.scopes


@dataclass(frozen=True, slots=True)
class Components:
    """All resources of a folder. `rules` are those of Resiliency files, the first that fits counts."""

    components: Mapping[str, Component]
    subscriptions: tuple[Subscription, ...] = ()
    default_delivery_retry: RetryPolicy = NO_RETRY
    rules: tuple[ResiliencyRules, ...] = ()

    def find(self, prefix: str, name: str, app_id: str) -> Component | None:
        """The component `name` whose type begins with `prefix`, if there is one and `app_id` may use it."""
        component = self.components.get(name)
        if component is None or not component.type.startswith(prefix) or not component.is_for(app_id):
            return None
        return component

    def of_kind(self, prefix: str) -> list[Component]:
        """Those whose type begins with `prefix`, of all apps."""
        return [item for item in self.components.values() if item.type.startswith(prefix)]

    def of_app(self, app_id: str) -> list[Component]:
        """Those that the app may use."""
        return [item for item in self.components.values() if item.is_for(app_id)]

    def delivery_retry(self, pubsub: str, app_id: str) -> RetryPolicy:
        """How a message is retried that an app did not take.

        As on Dapr: not at all if Resiliency files say nothing of this pub/sub.
        """
        for rules in self.rules:
            if rules.are_for(app_id) and pubsub in rules.deliveries:
                return rules.deliveries[pubsub]
        return self.default_delivery_retry

    def invocation_policy(self, caller: str, app_id: str) -> TargetPolicy:
        """What Resiliency files say of calls of `app_id` by `caller`."""
        for rules in self.rules:
            if rules.are_for(caller) and app_id in rules.apps:
                return rules.apps[app_id]
        return NO_POLICY


DEFAULT_SECRET_STORE = "secretstore"  # noqa: S105 - the name of a component
# What there is without a folder: enough for both services of a pip-installed Everturn.
DEFAULT_COMPONENTS = Components(
    components={
        "statestore": Component("statestore", "state.sqlite"),
        "pubsub": Component("pubsub", "pubsub.sqlite"),
        DEFAULT_SECRET_STORE: Component(DEFAULT_SECRET_STORE, "secretstores.local.env"),
    },
    default_delivery_retry=DEFAULT_DELIVERY_RETRY,
)


def read_components(folder: Path) -> Components:
    """The resources in the `.yaml` and `.yml` files of `folder`.

    Raises StartError with one sentence that names the file and what is wrong.
    """
    components: dict[str, Component] = {}
    subscriptions: list[Subscription] = []
    rules: list[ResiliencyRules] = []
    for resource in read_resources(folder):
        match resource.kind:
            case "Component":
                component = _component(resource)
                if component.name in components:
                    resource.refuse(f"there is a second component {component.name!r}")
                components[component.name] = component
            case "Subscription":
                subscriptions.append(_subscription(resource))
            case "Resiliency":
                rules.append(read_rules(resource))
            case _:
                log.info("resource_ignored", extra={"file": resource.file.name, "kind": resource.kind})
    # Of two files with rules for the same target, the last counts.
    return Components(components, tuple(subscriptions), rules=tuple(reversed(rules)))


def _component(resource: Resource) -> Component:
    name, kind = resource.text("metadata.name"), resource.text("spec.type")
    if not kind.startswith(_USED_TYPES):
        log.warning("component_not_supported", extra={"component": name, "component_type": kind})
    items = resource.get("spec.metadata", default=[])
    if not isinstance(items, list):
        resource.refuse("spec.metadata must be a list")
    return Component(
        name,
        kind,
        str(resource.get("spec.version", default="v1")),
        dict(_metadata_item(resource, item) for item in items),
        resource.scopes(),
    )


def _metadata_item(resource: Resource, item: Any) -> tuple[str, str]:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        resource.refuse("each item of spec.metadata needs a name")
    if "envRef" in item:
        return item["name"], os.environ.get(str(item["envRef"]), "")
    value = item.get("value", "")
    # YAML's own booleans and numbers stand for the text that was meant.
    return item["name"], str(value).lower() if isinstance(value, bool) else str(value)


def _subscription(resource: Resource) -> Subscription:
    route = resource.get("spec.routes.default") if "routes" in resource.mapping("spec") else resource.get("spec.route")
    if not isinstance(route, str) or not route:
        resource.refuse("spec.routes.default is missing")
    dead_letters = resource.get("spec.deadLetterTopic")
    if dead_letters is not None and not isinstance(dead_letters, str):
        resource.refuse("spec.deadLetterTopic must be the name of a topic")
    return Subscription(
        resource.text("spec.pubsubname"),
        resource.text("spec.topic"),
        route,
        dead_letters or None,
        resource.scopes(),
        is_declared=True,
    )
