"""Each test here runs against the sidecars of every runtime, as any program of Dapr's Python SDK would."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from dapr.clients import DaprClient
from dapr.conf import settings as sdk_settings
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime
from tools.dapr.layout import HOST

from tests.conformance.counts import SAME
from tests.conformance.sdk.app import PATIENCE_S, App
from tests.conformance.sdk.program import Program
from tests.conformance.sdk.sidecars import DaprSidecars, EmbeddedSidecars, Sidecars
from tests.real_dapr import require_dapr

SECRETS = '{"colour": "green", "nested": {"inner": "red"}}'


@pytest.fixture(scope="session", params=SAME)
def sidecars(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    """Two sidecars that run, and the SDK told of the first."""
    folder = tmp_path_factory.mktemp(f"sidecars-{request.param}")
    (folder / "secrets.json").write_text(SECRETS, "utf-8")
    settings = {
        "SECRETS_FILE": str(folder / "secrets.json"),
        "CONFORMANCE_COLOUR": "blue",
        "CONFORMANCE_SHAPE": "round",
        "EVERTURN_DATA_DIR": str(folder / "data"),
    }
    apps = (App(), App())
    for app in apps:
        app.start()
    made = make_sidecars(request.param, folder, settings, apps)
    before: dict[str, Any] = dict(vars(sdk_settings))
    sdk_settings.DAPR_HTTP_PORT, sdk_settings.DAPR_GRPC_PORT = made.open.http_port, made.open.grpc_port
    try:
        made.start()
        yield made
    finally:
        vars(sdk_settings).clear()
        vars(sdk_settings).update(before)
        made.stop()
        for app in apps:
            app.stop()


def make_sidecars(runtime: str, folder: Path, settings: dict[str, str], apps: tuple[App, App]) -> Sidecars:
    """Sidecars on that runtime, not yet started. Skips if the machine has not what it needs."""
    if runtime == "embedded":
        return EmbeddedSidecars.make(folder, settings, apps)
    return DaprSidecars.make(folder, settings, apps, require_dapr(runtime))


@pytest.fixture(scope="session")
def worker(sidecars: Sidecars) -> Iterator[WorkflowRuntime]:
    """A workflow worker that is connected; workflows are registered by the tests."""
    runtime = WorkflowRuntime(HOST, str(sidecars.open.grpc_port))
    runtime.start()
    yield runtime
    runtime.shutdown()


@pytest.fixture
def program(sidecars: Sidecars, worker: WorkflowRuntime, request: pytest.FixtureRequest) -> Iterator[Program]:
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
    workflows = DaprWorkflowClient(HOST, str(sidecars.open.grpc_port))
    with (
        DaprClient(sidecars.open.grpc_address) as dapr,
        httpx2.Client(base_url=f"{sidecars.open.url}/", timeout=PATIENCE_S, trust_env=False) as http,
    ):
        yield Program(name, sidecars, worker, workflows, dapr, http)
    workflows.close()
