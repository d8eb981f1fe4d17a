"""Which secrets of a store an app may have: `secrets.scopes` of a Configuration.

https://docs.dapr.io/operations/configuration/secret-scope/ ; rules of daprd 1.18, pkg/config/configuration.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from everturn.runtime.resources import Resource


@dataclass(frozen=True, slots=True)
class SecretScope:
    """`allowed`: these and no others, where there are any; else all but `denied`, or none, as `by_default` says."""

    by_default: bool = True
    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def allows(self, name: str) -> bool:
        if self.allowed:
            return name in self.allowed
        return self.by_default and name not in self.denied


def read_secret_scopes(resource: Resource) -> Mapping[str, SecretScope]:
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
