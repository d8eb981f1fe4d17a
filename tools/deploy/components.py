"""The components of the cluster against those of components/: the same names, routes and retries, by our own reader."""

from collections.abc import Iterator
from pathlib import Path

from everturn.errors import StartError
from everturn.runtime.resources.components import Component, read_components
from tools.deploy.facts import SERVICES

DAPR = "deploy/kubernetes/base/dapr"
# What our services rely on, whatever the store or the broker is.
_SAME = {
    "statestore": ("keyPrefix", "actorStateStore"),
    "pubsub": ("processingTimeout", "redeliverInterval"),
}


def component_faults(root: Path) -> Iterator[str]:
    """A sentence for each thing in which the cluster's Dapr would do other than everyone's."""
    try:
        ours, clusters = read_components(root / "components"), read_components(root / DAPR)
    except StartError as error:
        yield error.message.replace(f"{root}/", "")
        return
    if clusters.subscriptions != ours.subscriptions:
        yield f"{DAPR}: the subscriptions are not those of components/"
    if clusters.rules != ours.rules:
        yield f"{DAPR}: messages are not retried as in components/"
    for name, settings in _SAME.items():
        mine, theirs = ours.components.get(name), clusters.components.get(name)
        if mine is None or theirs is None:
            yield f"{DAPR}: there is no component {name}"
            continue
        yield from (f"{DAPR}: {name}: {what}" for what in _differences(mine, theirs, settings))
    store = clusters.components.get("statestore")
    # Workflows change several keys in one transaction, which Redis does not roll back; v1 has no compatible tables.
    if store is not None and (store.type, store.version) != ("state.postgresql", "v2"):
        yield f"{DAPR}: statestore must be state.postgresql v2"


def _differences(ours: Component, clusters: Component, settings: tuple[str, ...]) -> Iterator[str]:
    for setting in settings:
        if clusters.metadata.get(setting) != ours.metadata.get(setting):
            yield f"{setting} is not what it is in components/"
    for service in SERVICES:
        if not clusters.is_for(service.app_id) or not clusters.scopes:
            yield f"is not for {service.app_id} alone"
