"""deploy/kubernetes: every object by its schema, every reference by what it points to, all of it against the code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from everturn import __version__
from tools.deploy.facts import SETTING_NAMES, is_secret
from tools.deploy.manifests import Manifest, at, items, listing_faults, read_manifests
from tools.deploy.service_objects import service_faults
from tools.deploy.shapes import Kustomization, fit_faults, shape_faults

KUBERNETES = "deploy/kubernetes"
_WORKLOADS = ("Deployment", "StatefulSet")
_EXAMPLE = "secrets.example.yaml"
# In the example: the keys that a secret must have.
_KEYS = "everturn/keys"


def kubernetes_faults(root: Path) -> Iterator[str]:
    """A sentence for each fault of the manifests."""
    folder = root / KUBERNETES
    yield from listing_faults(folder)
    for file in sorted(folder.rglob("kustomization.yaml")):
        yield from _kustomization_faults(file.relative_to(folder).as_posix(), yaml.safe_load(file.read_text("utf-8")))
    manifests, faults = read_manifests(folder)
    yield from faults
    yield from _secret_faults(manifests)
    for manifest in manifests:
        if manifest.kind in _WORKLOADS:
            yield from _pod_faults(manifest)
    yield from service_faults([each for each in manifests if each.file.startswith("base/")])
    for manifest in manifests:  # last, because it takes the longest
        yield from shape_faults(manifest)


def _kustomization_faults(name: str, body: Any) -> Iterator[str]:
    yield from fit_faults(name, Kustomization, body)
    for image in items(body, "images"):
        if at(image, "name") == "everturn" and at(image, "newTag") != __version__:
            yield f"{name}: the image everturn is not of this version, {__version__}"


def _secret_faults(manifests: list[Manifest]) -> Iterator[str]:
    """Each secret that is referred to is in the example, and no secret is anywhere else, nor a value in the example.

    An empty value is one too: a pod with an empty token starts, and asks nobody for it.
    """
    shown: dict[str, set[str]] = {}
    for manifest in manifests:
        if manifest.kind != "Secret":
            continue
        shown[manifest.name] = set(str(at(manifest.body, "metadata", "annotations", _KEYS) or "").split())
        if manifest.file != _EXAMPLE or at(manifest.body, "stringData") or at(manifest.body, "data"):
            yield f"{manifest.label}: a secret that is no example without values"
    for manifest in manifests:
        for name, key in _secret_references(manifest):
            if key not in shown.get(name, set()):
                yield f"{manifest.label}: the secret {name} with {key} is not in {_EXAMPLE}"


def _secret_references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield from _keys_in(manifest.body)
    annotations = at(manifest.body, "spec", "template", "metadata", "annotations") or {}
    for name in ("dapr.io/api-token-secret", "dapr.io/app-token-secret"):
        if name in annotations:
            # https://docs.dapr.io/operations/security/api-token/: the injector reads this key.
            yield str(annotations[name]), "token"


def _keys_in(body: Any) -> Iterator[tuple[str, str]]:
    if isinstance(body, dict):
        reference = body.get("secretKeyRef")
        if isinstance(reference, dict):
            yield str(reference.get("name")), str(reference.get("key"))
    for part in body.values() if isinstance(body, dict) else body if isinstance(body, list) else ():
        yield from _keys_in(part)


def _pod_faults(manifest: Manifest) -> Iterator[str]:
    """What holds for every pod: little may be done in it, and it says what it needs."""
    spec = at(manifest.body, "spec", "template", "spec")
    if at(spec, "securityContext", "runAsNonRoot") is not True or not at(spec, "securityContext", "runAsUser"):
        yield f"{manifest.label}: must run as a user other than root"
    if at(spec, "securityContext", "seccompProfile", "type") != "RuntimeDefault":
        yield f"{manifest.label}: needs the seccomp profile of the container runtime"
    if at(spec, "automountServiceAccountToken") is not False:
        yield f"{manifest.label}: has no business with the cluster's API, and yet gets a token for it"
    for container in items(spec, "containers"):
        label = f"{manifest.label}: {at(container, 'name')}"
        yield from (f"{label}: {what}" for what in _container_faults(container, items(spec, "volumes"), manifest))


def _container_faults(container: Any, volumes: list[Any], manifest: Manifest) -> Iterator[str]:
    security = at(container, "securityContext")
    if at(security, "readOnlyRootFilesystem") is not True or at(security, "allowPrivilegeEscalation") is not False:
        yield "must have a read-only root and gain no privileges"
    if at(security, "capabilities", "drop") != ["ALL"]:
        yield "must drop all capabilities"
    for path in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if not at(container, "resources", *path):
            yield f"resources.{'.'.join(path)} is missing"
    claims = [at(each, "metadata", "name") for each in items(manifest.body, "spec", "volumeClaimTemplates")]
    known = [*(at(each, "name") for each in volumes), *claims]
    for mount in items(container, "volumeMounts"):
        if at(mount, "name") not in known:
            yield f"there is no volume {at(mount, 'name')}"
    yield from _content_faults(container)


def _content_faults(container: Any) -> Iterator[str]:
    image = str(at(container, "image"))
    # The version of our own image is in the kustomization.
    if image != "everturn" and image.partition(":")[2] in ("", "latest"):
        yield f"image {image} names no version"
    for variable in items(container, "env"):
        name = str(at(variable, "name"))
        if is_secret(name) and at(variable, "value") is not None:
            yield f"the secret {name} stands in the file"
        if image == "everturn" and name not in SETTING_NAMES:
            yield f"{name} is no setting"
