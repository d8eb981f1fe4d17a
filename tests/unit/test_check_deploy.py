"""The check of deploy/ passes what is there and finds what is planted."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools.check_deploy import deploy_faults
from tools.deploy.components import component_faults
from tools.deploy.compose import compose_faults
from tools.deploy.image import image_faults
from tools.deploy.kubernetes import kubernetes_faults

ROOT = Path(__file__).parent.parent.parent
Check = Callable[[Path], Iterator[str]]

DOCKERFILE = "deploy/Dockerfile"
COMPOSE = "deploy/compose.yaml"
BASE = "deploy/kubernetes/base"
CHAT = f"{BASE}/chat.yaml"
MEMORY = f"{BASE}/memory.yaml"
SECRETS = "deploy/kubernetes/secrets.example.yaml"
POLICY = f"{BASE}/network-policy.yaml"
POSTGRES = "deploy/kubernetes/overlays/with-stores/postgres.yaml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of the project as the check reads."""
    for folder in ("deploy", "components"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns(".env", "__pycache__"))
    for file in ("tools/setup.sh", "pyproject.toml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "uv.lock").touch()
    (tmp_path / "src").mkdir()
    return tmp_path


def plant(project: Path, file: str, right: str, wrong: str) -> None:
    text = (project / file).read_text("utf-8")
    assert right in text, f"{file} has no {right!r} any more"
    (project / file).write_text(text.replace(right, wrong), "utf-8")


def finds(check: Check, project: Path, fault: str) -> bool:
    return any(fault in each for each in check(project))


def test_what_is_there_passes(project: Path) -> None:
    assert list(deploy_faults(project)) == []


def test_the_command_names_the_fault_and_fails(project: Path) -> None:
    plant(project, COMPOSE, "--app-id=chat-service", "--app-id=chat")

    done = subprocess.run(
        [sys.executable, "-m", "tools.check_deploy"],
        cwd=project,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "needs --app-id=chat-service" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("WORKDIR /opt/everturn\nRUN", "WORKDIR opt\nRUN", "DL3000"),
        ("RUN pip install --no-cache-dir ", "RUN pip install ", "DL3042"),
        ("USER 10001:10001", "USER everturn", "USER must be the number"),
        ("USER 10001:10001", "USER 0:0", "USER must be the number"),
        ("HEALTHCHECK --interval=10s", "LABEL a=b\nENV c=d", "HEALTHCHECK is missing"),
        ("EXPOSE 8010 8001", "EXPOSE 8010", "EXPOSE lacks 8001"),
        ("COPY src ./src", "COPY source ./src", "there is no source to copy"),
        ("COPY src ./src", "COPY components ./src", "keeps components from the builder"),
        ("ARG UV_VERSION=0.13.9", "ARG UV_VERSION=0.1.0", "not the one of tools/setup.sh"),
        ("ARG UV_VERSION", "ARG GEMINI_API_KEY\nARG UV_VERSION", "would bake a secret"),
        ("EVERTURN_HOST=", "EVERTURN_HOSTS=", "EVERTURN_HOSTS is no setting"),
        ("\nFROM python:${PYTHON}\n", "\n", "one stage"),
    ],
)
def test_a_mistake_in_the_dockerfile_is_found(project: Path, right: str, wrong: str, fault: str) -> None:
    plant(project, DOCKERFILE, right, wrong)

    assert finds(image_faults, project, fault)


def test_a_builder_that_gets_the_whole_folder_is_found(project: Path) -> None:
    plant(project, "deploy/Dockerfile.dockerignore", "\n*\n", "\n")

    assert finds(image_faults, project, "must begin with *")


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("read_only: true", "read_onyl: true", "read_onyl"),
        ("chat-sidecar: {condition: service_started}", "sidecar: {condition: service_started}", "which there is not"),
        ("placement: {condition: service_started}", "placement: {condition: service_healthy}", "has no health check"),
        ("      chat-pod: {condition: service_started}\n", "", "without depending on it"),
        ("../components:", "../component:", "there is no ../component to mount"),
        ("redis:/data", "stuff:/data", "the volume stuff is not declared"),
        ("127.0.0.1:8010:8010", "8010:8010", "published beyond this machine"),
        ("${REDIS_PASSWORD:?write it into deploy/.env}", "swordfish", "the secret REDIS_PASSWORD stands in the file"),
        ("read_only: true", "read_only: false", "read_only must be True"),
        ("redis:7.2-alpine", "redis:latest", "names no version"),
        ("daprio/daprd:1.18.0", "daprio/daprd:1.17.0", "is not the Dapr that"),
        ("everturn:0.1.0", "everturn:0.0.1", "is not of this version"),
        ("command: [serve, memory]", "command: [serve, chat]", "memory: its command must be serve memory"),
        ("network_mode: service:chat-pod\n    command:", "command:", "its sidecar is in another network"),
        ("      chat-sidecar: {condition: service_started}\n", "", "must depend on its sidecar"),
        ("/readyz]", "/healthz]", "health check must ask for /readyz"),
        ("127.0.0.1:8001:8001", "127.0.0.1:8001:8010", "port 8001 is not published"),
        ("[agent-memory-service]", "[memory-service]", "needs the alias agent-memory-service"),
        ('DAPR_HTTP_PORT: "3501"', 'DAPR_HTTP_PORT: "3500"', "DAPR_HTTP_PORT must be its sidecar's"),
        ("      DAPR_API_TOKEN: *dapr-token\n      APP", "      APP", "DAPR_API_TOKEN must be its sidecar's"),
        ("  EVERTURN_MODEL_NAME:", "  EVERTURN_MODEL:", "EVERTURN_MODEL is no setting"),
        ("--app-id=chat-service", "--app-id=chat", "needs --app-id=chat-service"),
        ("      - --app-id=agent-memory-service\n", "", "needs --app-id=agent-memory-service"),
        ("--app-port=8001", "--app-port=8010", "needs --app-port=8001"),
        ("--max-body-size=16Mi", "--max-body-size=4Mi", "needs --max-body-size=16Mi"),
        ("listen-addresses=127.0.0.1", "listen-addresses=0.0.0.0", "needs --dapr-listen-addresses"),
        ("placement:50005", "placement:50006", "--placement-host-address points"),
        ("=scheduler:50006\n      - --res", "=schedule:50006\n      - --res", "--scheduler-host-address points"),
        ("../components:/components", "./dapr:/components", "must read components/"),
        ("/configuration/configuration.yaml", "/configuration/other.yaml", "must read deploy/dapr/configuration.yaml"),
        ("internal-grpc-port=50002", "internal-grpc-port=50012", "does not listen where others look"),
        ("${GEMINI_API_KEY:-}", "${GEMINI_KEY:-}", "GEMINI_KEY is missing"),
        ("  chat-sidecar:\n", "  chat-side:\n", "chat: it, its sidecar or the network of both is missing"),
        ("services:\n", "services: {\n", COMPOSE),
    ],
)
def test_a_mistake_in_the_compose_file_is_found(project: Path, right: str, wrong: str, fault: str) -> None:
    plant(project, COMPOSE, right, wrong)

    assert finds(compose_faults, project, fault)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        ("deploy/.env.example", "REDIS_PASSWORD=", "REDIS_PASSWORD=swordfish", "has a value"),
        ("deploy/.env.example", "GEMINI_API_KEY=\n", "GEMINI_API_KEY=\nUNUSED=\n", "nothing reads UNUSED"),
        ("deploy/dapr/configuration.yaml", "component: nameformat", "component: mdns", "nameformat"),
    ],
)
def test_a_mistake_beside_the_compose_file_is_found(
    project: Path, file: str, right: str, wrong: str, fault: str
) -> None:
    plant(project, file, right, wrong)

    assert finds(compose_faults, project, fault)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        (f"{BASE}/kustomization.yaml", "  - memory.yaml\n", "", "base/memory.yaml: no kustomization lists it"),
        (f"{BASE}/kustomization.yaml", "- memory.yaml", "- memories.yaml", "there is no memories.yaml"),
        (f"{BASE}/kustomization.yaml", "- chat.yaml", "- ../secrets.example.yaml", "an example, and yet"),
        (f"{BASE}/kustomization.yaml", "resources:", "resource:", "resource: Extra inputs"),
        (f"{BASE}/kustomization.yaml", "newTag: 0.1.0", "newTag: 0.0.1", "is not of this version"),
        (CHAT, "kind: Service", "kind: {", "chat.yaml: no YAML"),
        (SECRETS, "everturn/keys: password", "everturn/keys: password\nstringData: {password: s}", "without values"),
        (SECRETS, "everturn/keys: password", 'everturn/keys: password\nstringData: {password: ""}', "without values"),
        (SECRETS, "connectionString password", "connection password", "everturn-postgres with conn"),
        (CHAT, "key: token", "key: tokens", "everturn-dapr-api-token with tokens"),
        (CHAT, "api-token-secret: everturn-dapr", "api-token-secret: dapr", "dapr-api-token with token"),
        (POSTGRES, "runAsNonRoot: true", "runAsNonRoot: false", "other than root"),
        (POSTGRES, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "gets a token"),
        (POSTGRES, "type: RuntimeDefault", "type: Unconfined", "seccomp"),
        (POSTGRES, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "read-only root"),
        (POSTGRES, "drop: [ALL]", "drop: []", "must drop all capabilities"),
        (POSTGRES, "cpu: 250m", "ephemeral-storage: 1Gi", "resources.requests.cpu is missing"),
        (POSTGRES, "- name: run\n          emptyDir", "- name: runs\n          emptyDir", "there is no volume run"),
        (POSTGRES, "postgres:17.2-bookworm", "postgres", "names no version"),
        (POSTGRES, "name: PGDATA", "name: PGPASSWORD", "the secret PGPASSWORD stands in the file"),
        (CHAT, "name: GEMINI_API_KEY", "name: GEMINI_KEY", "GEMINI_KEY is no setting"),
        (f"{BASE}/settings.yaml", "EVERTURN_CORS_ORIGINS", "EVERTURN_ORIGINS", "EVERTURN_ORIGINS of everturn-settings"),
    ],
)
def test_a_mistake_in_the_manifests_is_found(project: Path, file: str, right: str, wrong: str, fault: str) -> None:
    plant(project, file, right, wrong)

    assert finds(kubernetes_faults, project, fault)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        (CHAT, "        dapr.io/app-id: chat-service\n", "", "dapr.io/app-id must be 'chat-service'"),
        (MEMORY, 'dapr.io/app-port: "8001"', 'dapr.io/app-port: "8010"', "dapr.io/app-port must be '8001'"),
        (CHAT, "max-body-size: 16Mi", "max-body-size: 4Mi", "dapr.io/max-body-size must be '16Mi'"),
        (CHAT, "dapr.io/config: everturn", "dapr.io/config: others", "names no Configuration"),
        (MEMORY, "app-token-secret: everturn-app", "app-token-secret: everturn-dapr", "APP_API_TOKEN and the anno"),
        (CHAT, "args: [serve, chat]", "args: [serve, memory]", "its arguments must be [serve, chat]"),
        (CHAT, "containerPort: 8010", "containerPort: 8011", "must have the port 8010"),
        (CHAT, "/healthz\n              port: http", "/healthz\n              port: 8001", "its livenessProbe asks at"),
        (CHAT, "path: /readyz", "path: /ready", "its readinessProbe must ask for /readyz"),
        (CHAT, "startupProbe:", "startupProbes:", "its startupProbe must ask for /healthz"),
        (CHAT, "terminationGracePeriodSeconds: 50", "terminationGracePeriodSeconds: 35", "terminationGracePeriod"),
        (
            CHAT,
            "kind: Deployment\nmetadata:\n  name: chat",
            "kind: Deployment\nmetadata:\n  name: talk",
            "no Deployment",
        ),
        (
            CHAT,
            "matchLabels:\n      app.kubernetes.io/name: chat\n  strat",
            "matchLabels: {a: b}\n  strat",
            "its own pods",
        ),
        (CHAT, "spec:\n  # How", "spec:\n  replicas: 3\n  # How", "for the autoscaler to say"),
        (CHAT, "targetPort: http", "targetPort: https", "its Service must lead to the port 8010"),
        (CHAT, "port: 8010\n      targetPort", "port: 80\n      targetPort", "its Service must lead to the port 8010"),
        (CHAT, "  selector:\n    app.kubernetes.io/name: chat", "  selector: {a: b}", "its Service selects other pods"),
        (CHAT, "kind: Deployment\n    name: chat", "kind: Deployment\n    name: memory", "no HorizontalPodAutoscaler"),
        (CHAT, "minReplicas: 2", "minReplicas: 1", "must keep two"),
        (CHAT, "container: chat", "container: app", "measures a container that there is not"),
        (CHAT, "kind: PodDisruptionBudget", "kind: PodDisruption", "no PodDisruptionBudget is for its pods"),
        (POLICY, "- port: 8010", "- port: 8011", "no NetworkPolicy lets anyone to its port 8010"),
        (POLICY, "[chat, memory]", "[chat]", "memory: no NetworkPolicy says where it may go"),
        (POLICY, "- port: 50002", "- port: 50001", "no NetworkPolicy lets anyone to its port 50002"),
        (POLICY, "- port: 9464", "- port: 8010", "monitoring to the ports 9464 and 9090 alone"),
        (POLICY, "everturn/clients", "everturn/monitoring", "monitoring to the ports 9464 and 9090 alone"),
        (CHAT, "containerPort: 9464", "containerPort: 9465", "the annotation prometheus.io/port must be one"),
        (MEMORY, 'prometheus.io/port: "9464"', 'prometheus.io/port: "8001"', "prometheus.io/port must be one"),
    ],
)
def test_objects_of_a_service_that_do_not_fit_are_found(
    project: Path, file: str, right: str, wrong: str, fault: str
) -> None:
    plant(project, file, right, wrong)

    assert finds(kubernetes_faults, project, fault)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        (CHAT, "periodSeconds: 2\n", "periodSecond: 2\n", "periodSecond"),
        (
            CHAT,
            "apiVersion: autoscaling/v2\n",
            "apiVersion: autoscaling/v2beta2\n",
            "has no HorizontalPodAutoscaler of",
        ),
        (f"{BASE}/dapr/pubsub.yaml", "value: redis:6379", "values: redis:6379", "values: Extra inputs"),
        (f"{BASE}/dapr/pubsub.yaml", "kind: Component", "kind: Components", "a kind of Dapr's that nothing here uses"),
    ],
)
def test_what_the_cluster_would_not_take_is_found(project: Path, file: str, right: str, wrong: str, fault: str) -> None:
    plant(project, file, right, wrong)

    assert finds(kubernetes_faults, project, fault)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "fault"),
    [
        ("subscription", "default: /conversations\n", "default: /events\n", "the subscriptions are not those of"),
        ("resiliency", "maxRetries: -1", "maxRetries: 3", "messages are not retried as"),
        ("pubsub", 'value: "5s"', 'value: "60s"', "redeliverInterval is not what it is in components/"),
        ("pubsub", "name: pubsub", "name: broker", "there is no component pubsub"),
        ("statestore", "value: appid", "value: name", "keyPrefix is not what it is in components/"),
        ("statestore", "name: actorStateStore", "name: actorStore", "actorStateStore is not what"),
        ("statestore", "  - agent-memory-service\n", "", "is not for agent-memory-service alone"),
        ("statestore", "version: v2", "version: v1", "must be state.postgresql v2"),
        ("statestore", "state.postgresql", "state.redis", "must be state.postgresql v2"),
        ("subscription", "kind: Subscription", "kind: [", f"{BASE}/dapr/subscription.yaml"),
    ],
)
def test_a_component_that_is_not_everyones_is_found(
    project: Path, file: str, right: str, wrong: str, fault: str
) -> None:
    plant(project, f"{BASE}/dapr/{file}.yaml", right, wrong)

    assert finds(component_faults, project, fault)
