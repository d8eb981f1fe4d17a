"""What deploy/kubernetes/base says of our two services: the objects of each, and how they fit together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.deploy.facts import (
    LIVENESS_PATH,
    READINESS_PATH,
    SERVICES,
    SETTING_NAMES,
    ServiceFacts,
    sidecar_limits,
)
from tools.deploy.manifests import Manifest, at, items

_PROBES = {"startupProbe": LIVENESS_PATH, "livenessProbe": LIVENESS_PATH, "readinessProbe": READINESS_PATH}
_LABELS = ("namespaceSelector", "matchLabels")


@dataclass(frozen=True, slots=True)
class _Service:
    """A service of ours and its Deployment among all `objects`."""

    facts: ServiceFacts
    deployment: Manifest
    objects: list[Manifest]

    @property
    def labels(self) -> Mapping[str, Any]:
        return at(self.deployment.body, "spec", "template", "metadata", "labels") or {}

    @property
    def pod(self) -> Any:
        return at(self.deployment.body, "spec", "template", "spec")

    @property
    def container(self) -> Any:
        return at(self.pod, "containers", 0)

    def fault(self, what: str) -> str:
        return f"{self.deployment.label}: {what}"

    def own(self, kind: str) -> Manifest | None:
        """The object of `kind` that has the service's name."""
        return find(self.objects, kind, self.facts.name)

    def is_selected_by(self, selector: Any) -> bool:
        """https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/, with no operator but `In`."""
        wanted = at(selector, "matchLabels") or {}
        one_of = {at(each, "key"): items(each, "values") for each in items(selector, "matchExpressions")}
        equal = all(self.labels.get(key) == value for key, value in wanted.items())
        return equal and all(self.labels.get(key) in values for key, values in one_of.items())

    def listens_on(self, port: Any) -> bool:
        """Whether `port`, a number or a name, is the container's port of this service."""
        ports = items(self.container, "ports")
        names = {at(each, "name"): at(each, "containerPort") for each in ports}
        return bool(names.get(port, port) == self.facts.port and self.facts.port in names.values())


def find(objects: list[Manifest], kind: str, name: str) -> Manifest | None:
    return next((each for each in objects if (each.kind, each.name) == (kind, name)), None)


def service_faults(objects: list[Manifest]) -> Iterator[str]:
    """A sentence for each thing that is wrong with our services in `objects`."""
    for facts in SERVICES:
        deployment = find(objects, "Deployment", facts.name)
        if deployment is None:
            yield f"base: there is no Deployment {facts.name}"
            continue
        service = _Service(facts, deployment, objects)
        yield from (service.fault(what) for what in _annotation_faults(service))
        yield from (service.fault(what) for what in _container_faults(service))
        yield from (service.fault(what) for what in _stop_faults(service))
        yield from (service.fault(what) for what in _companion_faults(service))
        yield from (service.fault(what) for what in _monitoring_faults(service))
    settings = find(objects, "ConfigMap", "everturn-settings")
    for name in at(settings.body, "data") or {} if settings else ():
        if name not in SETTING_NAMES:
            yield f"base: {name} of everturn-settings is no setting"


def _annotation_faults(service: _Service) -> Iterator[str]:
    """https://docs.dapr.io/reference/arguments-annotations-overview/"""
    given = at(service.deployment.body, "spec", "template", "metadata", "annotations") or {}
    limits = sidecar_limits()
    wanted = {
        "dapr.io/enabled": "true",
        "dapr.io/app-id": service.facts.app_id,
        "dapr.io/app-port": str(service.facts.port),
        "dapr.io/max-body-size": limits["--max-body-size"],
        "dapr.io/read-buffer-size": limits["--read-buffer-size"],
        "dapr.io/enable-native-sidecar": "true",
    }
    for name, value in wanted.items():
        if given.get(name) != value:
            yield f"the annotation {name} must be {value!r}"
    if find(service.objects, "Configuration", str(given.get("dapr.io/config"))) is None:
        yield "the annotation dapr.io/config names no Configuration"
    tokens = {"DAPR_API_TOKEN": "dapr.io/api-token-secret"}
    if service.facts.name == "memory":
        tokens["APP_API_TOKEN"] = "dapr.io/app-token-secret"  # noqa: S105 - the name of an annotation
    for setting, annotation in tokens.items():
        secret = _secret_of(service.container, setting)
        if secret is None or secret != given.get(annotation):
            yield f"{setting} and the annotation {annotation} must be one secret"


def _secret_of(container: Any, name: str) -> Any:
    found = (each for each in items(container, "env") if at(each, "name") == name)
    return at(next(found, None), "valueFrom", "secretKeyRef", "name")


def _container_faults(service: _Service) -> Iterator[str]:
    if at(service.container, "args") != ["serve", service.facts.name]:
        yield f"its arguments must be [serve, {service.facts.name}]"
    if not service.listens_on(service.facts.port):
        yield f"must have the port {service.facts.port}"
    for probe, path in _PROBES.items():
        asked = at(service.container, probe, "httpGet")
        if at(asked, "path") != path:
            yield f"its {probe} must ask for {path}"
        if not service.listens_on(at(asked, "port")):
            yield f"its {probe} asks at another port than {service.facts.port}"


def _stop_faults(service: _Service) -> Iterator[str]:
    settings = find(service.objects, "ConfigMap", "everturn-settings")
    shutdown_s = float(at(settings.body, "data", "EVERTURN_SHUTDOWN_S") or 0) if settings else 0
    before_s = at(service.container, "lifecycle", "preStop", "sleep", "seconds") or 0
    grace_s = at(service.pod, "terminationGracePeriodSeconds") or 30
    if not shutdown_s or before_s + shutdown_s >= grace_s:
        yield "terminationGracePeriodSeconds must be more than preStop and EVERTURN_SHUTDOWN_S together"


def _companion_faults(service: _Service) -> Iterator[str]:
    """The Service, the autoscaler, the disruption budget and the network policy that go with it."""
    if not service.is_selected_by(at(service.deployment.body, "spec", "selector")):
        yield "does not select its own pods"
    if at(service.deployment.body, "spec", "replicas") is not None:
        yield "replicas is for the autoscaler to say"
    front = service.own("Service")
    port = at(front.body, "spec", "ports", 0) if front else None
    chosen = {"matchLabels": at(front.body, "spec", "selector")} if front else None
    if at(port, "port") != service.facts.port or not service.listens_on(at(port, "targetPort")):
        yield f"its Service must lead to the port {service.facts.port}"
    elif not service.is_selected_by(chosen):
        yield "its Service selects other pods"
    scaler = service.own("HorizontalPodAutoscaler")
    target = at(scaler.body, "spec", "scaleTargetRef") if scaler else None
    if (at(target, "kind"), at(target, "name")) != ("Deployment", service.facts.name):
        yield "no HorizontalPodAutoscaler scales it"
    elif (at(scaler.body, "spec", "minReplicas") if scaler else 0) < 2:
        yield "its HorizontalPodAutoscaler must keep two: one is there while the other is replaced"
    measured = at(scaler.body, "spec", "metrics", 0, "containerResource", "container") if scaler else None
    if measured != at(service.container, "name"):
        yield "its HorizontalPodAutoscaler measures a container that there is not"
    budget = service.own("PodDisruptionBudget")
    if budget is None or not service.is_selected_by(at(budget.body, "spec", "selector")):
        yield "no PodDisruptionBudget is for its pods"
    yield from _policy_faults(service)


def _policy_faults(service: _Service) -> Iterator[str]:
    policies = [each for each in service.objects if each.kind == "NetworkPolicy"]
    own = [each for each in policies if service.is_selected_by(at(each.body, "spec", "podSelector"))]
    open_to_some = {
        at(port, "port")
        for policy in own
        for rule in items(policy.body, "spec", "ingress")
        if items(rule, "from")
        for port in items(rule, "ports")
    }
    if not any("Egress" in items(each.body, "spec", "policyTypes") for each in own):
        yield "no NetworkPolicy says where it may go"
    # 50002: the port of Dapr's sidecars for one another, on Kubernetes.
    for needed in (service.facts.port, 50002):
        if needed not in open_to_some:
            yield f"no NetworkPolicy lets anyone to its port {needed}"


def _monitoring_faults(service: _Service) -> Iterator[str]:
    """Monitoring reaches the metrics, of the service and of its sidecar, and nothing else."""
    settings = find(service.objects, "ConfigMap", "everturn-settings")
    port = int(at(settings.body, "data", "EVERTURN_METRICS_PORT") or 0) if settings else 0
    annotations = at(service.deployment.body, "spec", "template", "metadata", "annotations") or {}
    listens = [at(each, "containerPort") for each in items(service.container, "ports")]
    if not port or port not in listens or annotations.get("prometheus.io/port") != str(port):
        yield "EVERTURN_METRICS_PORT, a port of the container and the annotation prometheus.io/port must be one"
    # 9090: the port of Dapr's sidecars for their metrics.
    measured = {
        at(each, "port")
        for policy in service.objects
        if policy.kind == "NetworkPolicy" and service.is_selected_by(at(policy.body, "spec", "podSelector"))
        for rule in items(policy.body, "spec", "ingress")
        if any("everturn/monitoring" in (at(one, *_LABELS) or {}) for one in items(rule, "from"))
        for each in items(rule, "ports")
    }
    if measured != {port, 9090}:
        yield f"its NetworkPolicies must let monitoring to the ports {port} and 9090 alone"
