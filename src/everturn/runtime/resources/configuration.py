"""Dapr's Configuration resource (`--config`): which secrets an app may have. Its other settings have no effect.

https://docs.dapr.io/operations/configuration/secret-scope/ ; rules of daprd 1.18, pkg/config/configuration.go.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from everturn.errors import StartError
from everturn.runtime.resources.files import Resource, read_file

log = logging.getLogger(__name__)

_USED = frozenset({"secrets"})


@dataclass(frozen=True, slots=True)
class SecretScope:
    """`allowed`: if there are any, these and no others; else all but `denied`, or none, as `by_default` says."""

    by_default: bool = True
    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def allows(self, name: str) -> bool:
        if self.allowed:
            return name in self.allowed
        return self.by_default and name not in self.denied


@dataclass(frozen=True, slots=True)
class Configuration:
    """`secret_scopes`: by name of the secret store; one that is not named gives everything."""

    secret_scopes: Mapping[str, SecretScope] = field(default_factory=dict)

    def allows_secret(self, store: str, name: str) -> bool:
        scope = self.secret_scopes.get(store)
        return scope is None or scope.allows(name)


NO_CONFIGURATION = Configuration()


def read_configuration(file: Path) -> Configuration:
    """What the Configuration in `file` says; its other settings are named in the log.

    Raises StartError if the file cannot be read or has none.
    """
    resources = [resource for resource in read_file(file) if resource.kind == "Configuration"]
    if len(resources) != 1:
        raise StartError(f"{str(file)!r} must hold one resource of kind Configuration")
    (resource,) = resources
    ignored = sorted(resource.mapping("spec").keys() - _USED)
    if ignored:
        log.warning("configuration_ignored", extra={"file": file.name, "what": ", ".join(map(str, ignored))})
    return Configuration(_secret_scopes(resource))


def _secret_scopes(resource: Resource) -> Mapping[str, SecretScope]:
    """By name of the secret store. Raises StartError."""
    items = resource.get("spec.secrets.scopes", default=[])
    if not isinstance(items, list):
        resource.refuse("spec.secrets.scopes must be a list")
    scopes: dict[str, SecretScope] = {}
    for item in items:
        match item:
            case {"storeName": str(store), **rest} if store not in scopes:
                scopes[store] = SecretScope(
                    _allows(resource, rest.get("defaultAccess", "allow")),
                    _names(resource, rest.get("allowedSecrets")),
                    _names(resource, rest.get("deniedSecrets")),
                )
            case {"storeName": str(store)}:
                resource.refuse(f"spec.secrets.scopes speaks of {store!r} twice")
            case _:
                resource.refuse("each item of spec.secrets.scopes needs a storeName")
    return scopes


def _allows(resource: Resource, access: object) -> bool:
    """More careful than Dapr, to which every word but `deny` means `allow`."""
    word = str(access).lower()
    if word not in ("allow", "deny"):
        resource.refuse("defaultAccess must be allow or deny")
    return word == "allow"


def _names(resource: Resource, names: object) -> frozenset[str]:
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        resource.refuse("allowedSecrets and deniedSecrets must be lists of names")
    return frozenset(names)
