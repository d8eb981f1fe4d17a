"""Dapr's component files: what there is, who subscribes to what, how often is retried.

The same files serve real Dapr (https://docs.dapr.io/reference/resource-specs/). Here every `state.*` is a store in the
runtime's database and every `pubsub.*` a broker in it, whatever the file says of Redis.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from everturn.errors import StartError
from everturn.runtime.resiliency import DEFAULT_DELIVERY_RETRY, NO_RETRY, RetryPolicy, duration_s

log = logging.getLogger(__name__)

_USED_TYPES = ("state.", "pubsub.", "secretstores.local.")


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
    """Messages of `topic` go to `route` of an app; those that it will never take, to `dead_letter_topic`."""

    pubsub: str
    topic: str
    route: str
    dead_letter_topic: str | None = None
    scopes: frozenset[str] = frozenset()

    def is_for(self, app_id: str) -> bool:
        return not self.scopes or app_id in self.scopes


@dataclass(frozen=True, slots=True)
class Components:
    """All resources of a folder. `delivery_retries`: by name of a pub/sub, the policy of its inbound retry."""

    components: Mapping[str, Component]
    subscriptions: tuple[Subscription, ...] = ()
    delivery_retries: Mapping[str, RetryPolicy] = field(default_factory=dict)
    default_delivery_retry: RetryPolicy = NO_RETRY

    def find(self, prefix: str, name: str, app_id: str) -> Component | None:
        """The component `name` whose type begins with `prefix`, where there is one and `app_id` may use it."""
        component = self.components.get(name)
        if component is None or not component.type.startswith(prefix) or not component.is_for(app_id):
            return None
        return component

    def delivery_retry(self, pubsub: str) -> RetryPolicy:
        """How a message is retried that an app did not take.

        As on Dapr: where Resiliency files say nothing of this pub/sub, not at all.
        """
        return self.delivery_retries.get(pubsub, self.default_delivery_retry)


# What there is without a folder: enough for both services of a pip-installed Everturn.
DEFAULT_COMPONENTS = Components(
    components={
        "statestore": Component("statestore", "state.sqlite"),
        "pubsub": Component("pubsub", "pubsub.sqlite"),
        "secretstore": Component("secretstore", "secretstores.local.env"),
    },
    default_delivery_retry=DEFAULT_DELIVERY_RETRY,
)


def read_components(folder: Path) -> Components:
    """The resources in the `.yaml` and `.yml` files of `folder`.

    Raises StartError with one sentence that names the file and what is wrong.
    """
    components: dict[str, Component] = {}
    subscriptions: list[Subscription] = []
    retries: dict[str, RetryPolicy] = {}
    for resource in _resources(folder):
        match resource.kind:
            case "Component":
                component = _component(resource)
                if component.name in components:
                    resource.refuse(f"there is a second component {component.name!r}")
                components[component.name] = component
            case "Subscription":
                subscriptions.append(_subscription(resource))
            case "Resiliency":
                retries.update(_delivery_retries(resource))
            case _:
                log.info("resource_ignored", extra={"file": resource.file.name, "kind": resource.kind})
    return Components(components, tuple(subscriptions), retries)


@dataclass(frozen=True, slots=True)
class _Resource:
    file: Path
    kind: str
    body: Mapping[str, Any]

    def refuse(self, what: str) -> NoReturn:
        raise StartError(f"component file {str(self.file)!r}: {what}")

    def get(self, path: str, *names: str, default: Any = None) -> Any:
        """The value at a dotted path and then `names`, `default` where a part of it is missing."""
        at: Any = self.body
        for name in [*path.split("."), *names]:
            if not isinstance(at, Mapping):
                self.refuse(f"{'.'.join([path, *names])} must be a mapping up to its last part")
            at = at.get(name)
            if at is None:
                return default
        return at

    def text(self, path: str) -> str:
        value = self.get(path)
        if not isinstance(value, str) or not value:
            self.refuse(f"{path} is missing")
        return value

    def mapping(self, path: str, *names: str) -> Mapping[str, Any]:
        value = self.get(path, *names, default={})
        if not isinstance(value, Mapping):
            self.refuse(f"{'.'.join([path, *names])} must be a mapping")
        return value

    def scopes(self) -> frozenset[str]:
        value = self.get("scopes", default=[])
        if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
            self.refuse("scopes must be a list of app ids")
        return frozenset(value)


def _resources(folder: Path) -> Iterator[_Resource]:
    if not folder.is_dir():
        raise StartError(f"no folder {str(folder)!r} to read components from")
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            documents = list(yaml.safe_load_all(file.read_text("utf-8")))
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise StartError(f"component file {str(file)!r} cannot be read: {reason}") from error
        for body in documents:
            if body is None:
                continue
            if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
                raise StartError(f"component file {str(file)!r}: kind is missing")
            yield _Resource(file, body["kind"], body)


def _component(resource: _Resource) -> Component:
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


def _metadata_item(resource: _Resource, item: Any) -> tuple[str, str]:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        resource.refuse("each item of spec.metadata needs a name")
    if "envRef" in item:
        return item["name"], os.environ.get(str(item["envRef"]), "")
    value = item.get("value", "")
    # YAML's own booleans and numbers stand for the text that was meant.
    return item["name"], str(value).lower() if isinstance(value, bool) else str(value)


def _subscription(resource: _Resource) -> Subscription:
    route = resource.get("spec.routes.default") if "routes" in resource.mapping("spec") else resource.get("spec.route")
    if not isinstance(route, str) or not route:
        resource.refuse("spec.routes.default is missing")
    dead_letters = resource.get("spec.deadLetterTopic")
    if dead_letters is not None and not isinstance(dead_letters, str):
        resource.refuse("spec.deadLetterTopic must be the name of a topic")
    return Subscription(
        resource.text("spec.pubsubname"), resource.text("spec.topic"), route, dead_letters or None, resource.scopes()
    )


def _delivery_retries(resource: _Resource) -> dict[str, RetryPolicy]:
    policies = {name: _retry_policy(resource, name) for name in resource.mapping("spec.policies.retries")}
    found: dict[str, RetryPolicy] = {}
    for name in resource.mapping("spec.targets.components"):
        policy = resource.get("spec.targets.components", name, "inbound", "retry")
        if policy is None:
            continue
        if policy not in policies:
            resource.refuse(f"there is no retry policy {policy!r}")
        found[name] = policies[policy]
    return found


def _retry_policy(resource: _Resource, name: str) -> RetryPolicy:
    path = f"spec.policies.retries.{name}"
    given = resource.mapping("spec.policies.retries", name)
    kind = given.get("policy", "constant")
    if kind not in ("constant", "exponential"):
        resource.refuse(f"{path}.policy must be constant or exponential")
    try:
        return RetryPolicy(
            kind=kind,
            duration_s=duration_s(str(given.get("duration", "5s"))),
            initial_interval_s=duration_s(str(given.get("initialInterval", "500ms"))),
            max_interval_s=duration_s(str(given.get("maxInterval", "60s"))),
            max_retries=int(given.get("maxRetries", -1)),
        )
    except ValueError as error:
        resource.refuse(f"{path}: {error}")
