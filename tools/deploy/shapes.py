"""Whether an object is what its API takes: Kubernetes' own by their published schemas, Dapr's by the fields we use.

Nothing unknown is let through: a cluster would ignore it, or refuse the whole file.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import kubernetes_validate  # type: ignore[import-untyped]  # it comes without types
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.deploy.manifests import Manifest

# The oldest that has what the pods use (https://kubernetes.io/blog/2024/04/17/kubernetes-v1-30-release/: a preStop that
# sleeps, autoscaling by one container), and the newest that the validator knows.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Shape):
    name: str


class _SecretKey(_Shape):
    name: str
    key: str


class _Item(_Shape):
    name: str
    value: str | None = None
    secretKeyRef: _SecretKey | None = None  # noqa: N815 - Dapr's name


class _ComponentSpec(_Shape):
    type: str
    version: str
    metadata: list[_Item]


class _Auth(_Shape):
    secretStore: Literal["kubernetes"]  # noqa: N815 - Dapr's name


class _Component(_Shape):
    apiVersion: Literal["dapr.io/v1alpha1"]  # noqa: N815 - Dapr's name
    kind: Literal["Component"]
    metadata: _Metadata
    spec: _ComponentSpec
    auth: _Auth
    scopes: Annotated[list[str], Field(min_length=1)]


class _Routes(_Shape):
    default: str


class _SubscriptionSpec(_Shape):
    pubsubname: str
    topic: str
    routes: _Routes
    deadLetterTopic: str | None = None  # noqa: N815 - Dapr's name


class _Subscription(_Shape):
    apiVersion: Literal["dapr.io/v2alpha1"]  # noqa: N815 - Dapr's name
    kind: Literal["Subscription"]
    metadata: _Metadata
    spec: _SubscriptionSpec
    scopes: Annotated[list[str], Field(min_length=1)]


class _Resiliency(_Shape):
    """What is in `spec` the runtime's own reader checks."""

    apiVersion: Literal["dapr.io/v1alpha1"]  # noqa: N815 - Dapr's name
    kind: Literal["Resiliency"]
    metadata: _Metadata
    spec: dict[str, Any]
    scopes: Annotated[list[str], Field(min_length=1)]


class _HttpMetrics(_Shape):
    increasedCardinality: bool  # noqa: N815 - Dapr's name


class _Metrics(_Shape):
    enabled: bool
    http: _HttpMetrics


class _NameFormat(_Shape):
    format: str


class _NameResolution(_Shape):
    component: Literal["nameformat"]
    version: Literal["v1"]
    configuration: _NameFormat


class _ConfigurationSpec(_Shape):
    metrics: _Metrics | None = None
    nameResolution: _NameResolution | None = None  # noqa: N815 - Dapr's name


class _Configuration(_Shape):
    apiVersion: Literal["dapr.io/v1alpha1"]  # noqa: N815 - Dapr's name
    kind: Literal["Configuration"]
    metadata: _Metadata
    spec: _ConfigurationSpec


_OF_DAPR: dict[str, type[_Shape]] = {
    "Component": _Component,
    "Subscription": _Subscription,
    "Resiliency": _Resiliency,
    "Configuration": _Configuration,
}


class _Labels(_Shape):
    pairs: dict[str, str]
    includeTemplates: bool  # noqa: N815 - Kustomize's name


class _Image(_Shape):
    name: str
    newTag: str  # noqa: N815 - Kustomize's name


class Kustomization(_Shape):
    """https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/, as far as it is used here."""

    apiVersion: Literal["kustomize.config.k8s.io/v1beta1"]  # noqa: N815 - Kustomize's name
    kind: Literal["Kustomization"]
    namespace: str
    resources: list[str]
    labels: list[_Labels] = []
    images: list[_Image] = []


def shape_faults(manifest: Manifest) -> Iterator[str]:
    """A sentence for each thing that the API would not take."""
    if manifest.is_of_dapr:
        shape = _OF_DAPR.get(manifest.kind)
        if shape is None:
            yield f"{manifest.label}: a kind of Dapr's that nothing here uses"
            return
        yield from fit_faults(manifest.label, shape, manifest.body)
        return
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(dict(manifest.body), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(step) for step in error.absolute_path)
            yield f"{manifest.label}: {where}: {error.message} (Kubernetes {version})"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{manifest.label}: Kubernetes {version} has no {error.kind} of {error.api_version}"


def fit_faults(label: str, shape: type[BaseModel], body: Any) -> Iterator[str]:
    """A sentence for each part of `body` that `shape` does not allow."""
    try:
        shape.model_validate(body)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            yield f"{label}: {'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
