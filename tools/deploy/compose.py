"""deploy/compose.yaml: the Compose specification by its validator, and what its services have to agree with."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

from everturn import __version__
from tools.dapr.build import DAPR_VERSION
from tools.deploy.facts import (
    READINESS_PATH,
    SERVICES,
    SETTING_NAMES,
    ServiceFacts,
    is_secret,
    sidecar_limits,
)
from tools.deploy.manifests import Manifest, at, items
from tools.deploy.shapes import shape_faults

COMPOSE = "deploy/compose.yaml"
_CONFIGURATION = "deploy/dapr/configuration.yaml"
_EXAMPLE = "deploy/.env.example"
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
_HANDED_IN = re.compile(r"\$\{\w+(:?[-?][^}]*)?\}")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A service of ours and the sidecar beside it."""

    facts: ServiceFacts
    service: Mapping[str, Any]
    sidecar: Mapping[str, Any]
    pod_name: str
    pod: Mapping[str, Any]

    @property
    def flags(self) -> Mapping[str, str]:
        arguments = (str(each) for each in items(self.sidecar, "command"))
        return dict(each.split("=", 1) for each in arguments if "=" in each)

    def fault(self, what: str) -> str:
        return f"{COMPOSE}: {self.facts.name}: {what}"


def compose_faults(root: Path) -> Iterator[str]:
    """A sentence for each fault of the Compose file and of the two files beside it."""
    text = (root / COMPOSE).read_text("utf-8")
    try:
        body = yaml.safe_load(text)
        PyCompose.from_json(json.dumps(body)).validate()
    except (yaml.YAMLError, ValueError) as error:
        yield f"{COMPOSE}: {' '.join(str(error).split())}"
        return
    services: Mapping[str, Any] = body["services"]
    for name, service in services.items():
        yield from (f"{COMPOSE}: {name}: {what}" for what in _service_faults(root, body, service))
    for facts in SERVICES:
        pod_name = str(at(services, facts.name, "network_mode")).removeprefix("service:")
        parts = (services.get(facts.name), services.get(f"{facts.name}-sidecar"), services.get(pod_name))
        if not all(parts):
            yield f"{COMPOSE}: {facts.name}: it, its sidecar or the network of both is missing"
            continue
        pair = _Pair(facts, parts[0] or {}, parts[1] or {}, pod_name, parts[2] or {})
        yield from _pair_faults(pair)
        yield from _environment_faults(pair)
        yield from _sidecar_faults(pair, services)
    yield from _example_faults(root, text)
    for document in yaml.safe_load_all((root / _CONFIGURATION).read_text("utf-8")):
        yield from shape_faults(Manifest(_CONFIGURATION, document))
    yield from _name_resolution_faults(root, services)


def _service_faults(root: Path, body: Any, service: Mapping[str, Any]) -> Iterator[str]:
    """What holds for every service."""
    yield from _image_faults(str(service.get("image", "")))
    yield from _need_faults(body["services"], service)
    yield from _volume_faults(root, body, service)
    for published in items(service, "ports"):
        if not str(published).startswith("127.0.0.1:"):
            yield f"port {published} is published beyond this machine"
    for name, value in (service.get("environment") or {}).items():
        if is_secret(name) and not _HANDED_IN.fullmatch(str(value)):
            yield f"the secret {name} stands in the file"
    for needed, wanted in (("read_only", True), ("cap_drop", ["ALL"]), ("restart", "unless-stopped")):
        if service.get(needed) != wanted:
            yield f"{needed} must be {wanted}"


def _need_faults(services: Mapping[str, Any], service: Mapping[str, Any]) -> Iterator[str]:
    needs: Mapping[str, Any] = service.get("depends_on") or {}
    for other, need in needs.items():
        if other not in services:
            yield f"depends on {other}, which there is not"
        elif at(need, "condition") == "service_healthy" and "healthcheck" not in services[other]:
            yield f"waits until {other} is healthy, which has no health check"
    kind, _, owner = str(service.get("network_mode", "")).partition(":")
    if kind == "service" and owner not in needs:
        yield f"shares the network of {owner} without depending on it"


def _volume_faults(root: Path, body: Any, service: Mapping[str, Any]) -> Iterator[str]:
    for volume in items(service, "volumes"):
        source = str(volume).split(":", 1)[0]
        if source.startswith(".") and not (root / COMPOSE).parent.joinpath(source).exists():
            yield f"there is no {source} to mount"
        elif not source.startswith(".") and source not in (body.get("volumes") or {}):
            yield f"the volume {source} is not declared"


def _image_faults(image: str) -> Iterator[str]:
    name, _, tag = image.partition(":")
    if tag in ("", "latest"):
        yield f"image {image!r} names no version"
    if name.startswith("daprio/") and tag != DAPR_VERSION:
        yield f"image {image} is not the Dapr that tools/dapr builds, {DAPR_VERSION}"
    if name == "everturn" and tag != __version__:
        yield f"image {image} is not of this version, {__version__}"


def _pair_faults(pair: _Pair) -> Iterator[str]:
    if pair.service.get("command") != ["serve", pair.facts.name]:
        yield pair.fault(f"its command must be serve {pair.facts.name}")
    if pair.sidecar.get("network_mode") != f"service:{pair.pod_name}":
        yield pair.fault("its sidecar is in another network")
    if f"{pair.facts.name}-sidecar" not in (pair.service.get("depends_on") or {}):
        yield pair.fault("must depend on its sidecar, so that it stops first")
    check = [str(each) for each in items(pair.service, "healthcheck", "test")]
    if check[-1:] != [READINESS_PATH]:
        yield pair.fault(f"its health check must ask for {READINESS_PATH}")
    if f"127.0.0.1:{pair.facts.port}:{pair.facts.port}" not in items(pair.pod, "ports"):
        yield pair.fault(f"port {pair.facts.port} is not published")
    if pair.facts.app_id not in items(pair.pod, "networks", "default", "aliases"):
        yield pair.fault(f"its network needs the alias {pair.facts.app_id}, by which other sidecars find it")


def _environment_faults(pair: _Pair) -> Iterator[str]:
    environment: Mapping[str, Any] = pair.service.get("environment") or {}
    for name in environment:
        if name not in SETTING_NAMES:
            yield pair.fault(f"{name} is no setting")
    for token in ("DAPR_API_TOKEN", "APP_API_TOKEN") if pair.facts.name == "memory" else ("DAPR_API_TOKEN",):
        if environment.get(token) is None or environment[token] != at(pair.sidecar, "environment", token):
            yield pair.fault(f"{token} must be its sidecar's")
    for name, flag in (("DAPR_HTTP_PORT", "--dapr-http-port"), ("DAPR_GRPC_PORT", "--dapr-grpc-port")):
        if environment.get(name) is None or environment[name] != pair.flags.get(flag):
            yield pair.fault(f"{name} must be its sidecar's {flag}")


def _sidecar_faults(pair: _Pair, services: Mapping[str, Any]) -> Iterator[str]:
    wanted = {"--app-id": pair.facts.app_id, "--app-port": str(pair.facts.port), **sidecar_limits()}
    wanted["--dapr-listen-addresses"] = "127.0.0.1"
    for flag, value in wanted.items():
        if pair.flags.get(flag) != value:
            yield pair.fault(f"its sidecar needs {flag}={value}")
    for flag in ("--placement-host-address", "--scheduler-host-address"):
        host, _, port = pair.flags.get(flag, "").partition(":")
        command = " ".join(str(each) for each in items(services.get(host), "command"))
        if not port or not re.search(rf"--port[ =]{port}\b", command):
            yield pair.fault(f"nothing listens where its sidecar's {flag} points")
    mounted = [str(each).split(":") for each in items(pair.sidecar, "volumes")]
    targets = {parts[1]: parts[0] for parts in mounted if len(parts) > 1}
    if targets.get(pair.flags.get("--resources-path", "")) != "../components":
        yield pair.fault("its sidecar must read components/, as everyone does")
    folder, _, file = pair.flags.get("--config", "").rpartition("/")
    if f"{targets.get(folder)}/{file}" != "./" + _CONFIGURATION.removeprefix("deploy/"):
        yield pair.fault(f"its sidecar must read {_CONFIGURATION}")


def _name_resolution_faults(root: Path, services: Mapping[str, Any]) -> Iterator[str]:
    configuration = yaml.safe_load((root / _CONFIGURATION).read_text("utf-8"))
    told = at(configuration, "spec", "nameResolution", "configuration", "format")
    for facts in SERVICES:
        command = items(services.get(f"{facts.name}-sidecar"), "command")
        listens = [str(each) for each in command if str(each).startswith("--dapr-internal-grpc-port=")]
        port = listens[0].partition("=")[2] if listens else None
        if told != f"{{appid}}:{port}":
            yield f"{_CONFIGURATION}: the sidecar of {facts.name} does not listen where others look for it"


def _example_faults(root: Path, text: str) -> Iterator[str]:
    lines = [line for line in (root / _EXAMPLE).read_text("utf-8").splitlines() if line and not line.startswith("#")]
    shown = {line.partition("=")[0]: line.partition("=")[2] for line in lines}
    for name in sorted(set(_VARIABLE.findall(text)) - set(shown)):
        yield f"{_EXAMPLE}: {name} is missing"
    for name, value in shown.items():
        if value:
            yield f"{_EXAMPLE}: {name} has a value that people would keep"
        if name not in _VARIABLE.findall(text):
            yield f"{_EXAMPLE}: nothing reads {name}"
