"""Dapr's Configuration resource (`--config`): what is used of it, and a word on what is not.

https://docs.dapr.io/operations/configuration/configuration-overview/
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from everturn.errors import StartError
from everturn.runtime.resources import read_file
from everturn.runtime.secret_scopes import SecretScope, read_secret_scopes

log = logging.getLogger(__name__)

_USED = frozenset({"secrets"})


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

    Raises StartError where the file cannot be read or has none.
    """
    resources = [resource for resource in read_file(file) if resource.kind == "Configuration"]
    if len(resources) != 1:
        raise StartError(f"{str(file)!r} must hold one resource of kind Configuration")
    (resource,) = resources
    ignored = sorted(resource.mapping("spec").keys() - _USED)
    if ignored:
        log.warning("configuration_ignored", extra={"file": file.name, "what": ", ".join(map(str, ignored))})
    return Configuration(read_secret_scopes(resource))
