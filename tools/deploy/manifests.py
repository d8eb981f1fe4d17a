"""YAML files of Kubernetes objects, and how to look into them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_FILE_OF_A_FOLDER = "kustomization.yaml"
# For people to copy; no kustomization lists them.
_EXAMPLE = ".example.yaml"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file; `file` is relative to the folder that the search began in."""

    file: str
    body: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body.get("kind", ""))

    @property
    def api_version(self) -> str:
        return str(self.body.get("apiVersion", ""))

    @property
    def name(self) -> str:
        return str(at(self.body, "metadata", "name"))

    @property
    def is_of_dapr(self) -> bool:
        return self.api_version.startswith("dapr.io/")

    @property
    def label(self) -> str:
        return f"{self.file}: {self.kind} {self.name}"


def at(body: Any, *path: str | int) -> Any:
    """What lies at `path`, None if a part of it is missing."""
    for step in path:
        if isinstance(step, int) and isinstance(body, list) and step < len(body):
            body = body[step]
        elif isinstance(body, Mapping):
            body = body.get(step)
        else:
            return None
    return body


def items(body: Any, *path: str | int) -> list[Any]:
    """The list at `path`, empty if there is none."""
    found = at(body, *path)
    return found if isinstance(found, list) else []


def read_manifests(folder: Path) -> tuple[list[Manifest], list[str]]:
    """Every object of the files below `folder`, kustomizations aside, and a sentence for each file that is not YAML."""
    found: list[Manifest] = []
    faults: list[str] = []
    for file in sorted(folder.rglob("*.yaml")):
        if file.name == _FILE_OF_A_FOLDER:
            continue
        name = file.relative_to(folder).as_posix()
        try:
            bodies = list(yaml.safe_load_all(file.read_text("utf-8")))
        except yaml.YAMLError as error:
            faults.append(f"{name}: no YAML: {' '.join(str(error).split())}")
            continue
        for body in bodies:
            if isinstance(body, dict):
                found.append(Manifest(name, body))
            else:
                faults.append(f"{name}: a document in it is no object")
    return found, faults


def listing_faults(folder: Path) -> Iterator[str]:
    """Each kustomization lists files that are there, and each file but the examples is listed by one of them."""
    listed: set[Path] = set()
    for file in sorted(folder.rglob(_FILE_OF_A_FOLDER)):
        name = file.relative_to(folder).as_posix()
        for resource in items(yaml.safe_load(file.read_text("utf-8")), "resources"):
            target = (file.parent / str(resource)).resolve()
            whole = target / _FILE_OF_A_FOLDER if target.is_dir() else target
            if not whole.is_file():
                yield f"{name}: there is no {resource}"
            listed.add(target)
    for file in sorted(folder.rglob("*.yaml")):
        if file.name != _FILE_OF_A_FOLDER and not file.name.endswith(_EXAMPLE) and file.resolve() not in listed:
            yield f"{file.relative_to(folder).as_posix()}: no kustomization lists it"
        if file.name.endswith(_EXAMPLE) and file.resolve() in listed:
            yield f"{file.relative_to(folder).as_posix()}: an example, and yet a kustomization lists it"
