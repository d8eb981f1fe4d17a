"""Secrets of the process's environment or of a JSON file, and what an app gets of them.

https://docs.dapr.io/reference/components-reference/supported-secret-stores/envvar-secret-store/ and file-secret-store/
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from everturn.errors import StartError
from everturn.runtime.errors import DaprError
from everturn.runtime.resources.components import Component, Components
from everturn.runtime.resources.configuration import Configuration


class SecretStore(Protocol):
    def get(self, name: str) -> dict[str, str] | None:
        """The keys and values of a secret, None if there is no such secret."""
        ...

    def get_all(self) -> dict[str, dict[str, str]]:
        """Every secret by name."""
        ...


class EnvironmentSecrets:
    """Each variable of the environment is a secret. The tokens of the runtime itself are not, as on Dapr."""

    def __init__(self, environment: Mapping[str, str], prefix: str = "") -> None:
        self._environment = environment
        self._prefix = prefix

    def get(self, name: str) -> dict[str, str]:
        """As on Dapr an unset variable is an empty secret."""
        variable = self._prefix + name
        return {name: "" if _is_reserved(variable) else self._environment.get(variable, "")}

    def get_all(self) -> dict[str, dict[str, str]]:
        names = [
            variable.removeprefix(self._prefix)
            for variable in self._environment
            if variable.startswith(self._prefix) and not _is_reserved(variable)
        ]
        return {name: self.get(name) for name in names}


class FileSecrets:
    """The members of a JSON file, read once. Nested ones are joined by a separator, or with `multi_valued` make one
    secret of several keys."""

    def __init__(self, file: Path, *, separator: str = ":", multi_valued: bool = False) -> None:
        """Raises StartError if the file cannot be read."""
        content = _read_object(file)
        if multi_valued:
            self._secrets = {name: dict(_leaves(value, "", separator, name)) for name, value in content.items()}
        else:
            self._secrets = {name: {name: value} for name, value in _leaves(content, "", separator)}

    def get(self, name: str) -> dict[str, str] | None:
        return self._secrets.get(name)

    def get_all(self) -> dict[str, dict[str, str]]:
        return dict(self._secrets)


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
        found = self._store(store).get_all()
        return {name: secret for name, secret in found.items() if self._configuration.allows_secret(store, name)}

    def _store(self, name: str) -> SecretStore:
        """Raises DaprError: 500 without any store, 401 if this app has none of that name."""
        if not self._stores:
            raise DaprError(500, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")
        store = self._stores.get(name)
        if store is None or self._components.find("secretstores.", name, self._app_id) is None:
            raise DaprError(401, "ERR_SECRET_STORE_NOT_FOUND", f"failed finding secret store with key {name}")
        return store


def open_secret_store(component: Component) -> SecretStore | None:
    """The store of a `secretstores.*` component, None if the runtime has none of its type.

    Raises StartError if its file is missing or wrong.
    """
    match component.type:
        case "secretstores.local.env":
            return EnvironmentSecrets(os.environ, component.metadata.get("prefix", ""))
        case "secretstores.local.file":
            return FileSecrets(
                Path(component.metadata.get("secretsFile", "")),
                separator=component.metadata.get("nestedSeparator") or ":",
                multi_valued=component.metadata.get("multiValued") == "true",
            )
        case _:
            return None


def _is_reserved(variable: str) -> bool:
    name = variable.upper()
    return name == "APP_API_TOKEN" or name.startswith("DAPR_")


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
