"""Secrets of the process's environment or of a JSON file, and what an app gets of them.

https://docs.dapr.io/reference/components-reference/supported-secret-stores/envvar-secret-store/ and file-secret-store/
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from everturn.errors import StartError
from everturn.runtime.errors import DaprError
from everturn.runtime.resources.components import Components
from everturn.runtime.resources.configuration import Configuration


class SecretStore(Protocol):
    def get(self, name: str) -> dict[str, str] | None:
        """The keys and values of a secret, None if there is no such secret."""
        ...

    def items(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Every secret with its name."""
        ...


class EnvironmentSecrets:
    """Each variable of the environment is a secret. The tokens of the runtime itself are not, as on Dapr."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def get(self, name: str) -> dict[str, str]:
        """As on Dapr an unset variable is an empty secret."""
        variable = self._prefix + name
        return {name: "" if _is_reserved(variable) else os.environ.get(variable, "")}

    def items(self) -> Iterator[tuple[str, dict[str, str]]]:
        for variable in os.environ:
            if variable.startswith(self._prefix) and not _is_reserved(variable):
                name = variable.removeprefix(self._prefix)
                yield name, self.get(name)


class AppSecrets:
    """The secrets of one app: of the stores in its scope, those that the Configuration lets it have."""

    def __init__(
        self, app_id: str, stores: Mapping[str, SecretStore], components: Components, configuration: Configuration
    ) -> None:
        self._app_id = app_id
        self._stores = stores
        self._components = components
        self._configuration = configuration

    def get(self, store: str, name: str) -> dict[str, str]:
        """Raises DaprError if there is no such store or secret, or the app may not have it (403)."""
        opened = self._store(store)
        if not self._configuration.allows_secret(store, name):
            message = f'access denied by policy to get "{name}" from "{store}"'
            raise DaprError(403, "ERR_PERMISSION_DENIED", message)
        secret = opened.get(name)
        if secret is None:
            what = f"failed getting secret with key {name} from secret store {store}"
            raise DaprError(500, "ERR_SECRET_GET", f"{what}: secret {name} not found")
        return secret

    def get_all(self, store: str) -> dict[str, dict[str, str]]:
        """All that the app may have. Raises DaprError if there is no such store."""
        found = self._store(store).items()
        return {name: secret for name, secret in found if self._configuration.allows_secret(store, name)}

    def _store(self, name: str) -> SecretStore:
        """Raises DaprError: 500 without any store, 401 if this app has none of that name."""
        if not self._stores:
            raise DaprError(500, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")
        store = self._stores.get(name)
        if store is None or self._components.find("secretstores.", name, self._app_id) is None:
            raise DaprError(401, "ERR_SECRET_STORE_NOT_FOUND", f"failed finding secret store with key {name}")
        return store


def open_secret_stores(components: Components) -> dict[str, SecretStore]:
    """By name, the `secretstores.*` components of the types that the runtime has.

    Raises StartError if the file of one is missing or wrong.
    """
    stores: dict[str, SecretStore] = {}
    for item in components.of_kind("secretstores."):
        if item.type == "secretstores.local.env":
            stores[item.name] = EnvironmentSecrets(item.metadata.get("prefix", ""))
        elif item.type == "secretstores.local.file":
            stores[item.name] = _read_secrets(item.metadata)
    return stores


def _is_reserved(variable: str) -> bool:
    name = variable.upper()
    return name == "APP_API_TOKEN" or name.startswith("DAPR_")


def _read_secrets(metadata: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The members of a JSON file. Nested ones are joined by a separator, or with `multiValued` make one secret of
    several keys. Raises StartError.
    """
    content = _read_object(Path(metadata.get("secretsFile", "")))
    separator = metadata.get("nestedSeparator") or ":"
    if metadata.get("multiValued") == "true":
        return {name: dict(_leaves(value, "", separator, name)) for name, value in content.items()}
    return {name: {name: value} for name, value in _leaves(content, "", separator)}


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise StartError(f"secrets file {str(file)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:  # what the file holds stays out of the message
        raise StartError(f"secrets file {str(file)!r} is not JSON") from error
    if not isinstance(content, dict):
        raise StartError(f"secrets file {str(file)!r} must hold a JSON object")
    return content


def _leaves(value: Any, path: str, separator: str, name_of_root: str = "") -> list[tuple[str, str]]:
    """The values below `value` with their paths; `name_of_root` is the path of a value with nothing below."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(path or name_of_root, _text(value))]
    return [
        leaf for name, item in items for leaf in _leaves(item, f"{path}{separator}{name}" if path else name, separator)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
