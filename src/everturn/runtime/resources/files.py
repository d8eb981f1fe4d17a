"""Dapr's resource files: YAML documents of a kind (https://docs.dapr.io/reference/resource-specs/)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from everturn.errors import StartError


@dataclass(frozen=True, slots=True)
class Resource:
    """One document of a file. Reading a value raises StartError if it has not the shape that it must have."""

    file: Path
    kind: str
    body: Mapping[str, Any]

    def refuse(self, what: str) -> NoReturn:
        """Raises StartError with the file and `what` is wrong in it."""
        raise StartError(f"component file {str(self.file)!r}: {what}")

    def get(self, path: str, *names: str, default: Any = None) -> Any:
        """The value at a dotted path and then `names`, `default` if a part of it is missing."""
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
        if other := [name for name in value if not isinstance(name, str)]:
            self.refuse(f"{'.'.join([path, *names])} has the name {other[0]!r}, which is no text: put it in quotes")
        return value

    def scopes(self) -> frozenset[str]:
        value = self.get("scopes", default=[])
        if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
            self.refuse("scopes must be a list of app ids")
        return frozenset(value)


def read_resources(folder: Path) -> Iterator[Resource]:
    """The resources in the `.yaml` and `.yml` files of `folder`. Raises StartError."""
    if not folder.is_dir():
        raise StartError(f"no folder {str(folder)!r} to read components from")
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        yield from read_file(file)


def read_file(file: Path) -> Iterator[Resource]:
    """The resources of one file. Raises StartError."""
    try:
        documents = list(yaml.safe_load_all(file.read_text("utf-8")))
    except RecursionError as error:
        raise StartError(f"component file {str(file)!r} cannot be read: it is nested too deep") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StartError(f"component file {str(file)!r} cannot be read: {reason}") from error
    for body in documents:
        if body is None:
            continue
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            raise StartError(f"component file {str(file)!r}: kind is missing")
        yield Resource(file, body["kind"], body)
