"""A sidecar is healthy once its app listens; before that its building blocks can be used."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.conformance.counts import SAME
from tests.conformance.sdk.app import PATIENCE_S, App
from tests.conformance.sdk.conftest import make_sidecars
from tests.conformance.sdk.sidecars import Sidecars


def status_of(url: str) -> int:
    try:
        return httpx2.get(url, timeout=2, trust_env=False).status_code
    except httpx2.TransportError:
        return 0


@dataclass
class LateApps:
    """Start once a sidecar's building blocks can be used; `before` is what the sidecar said of its health then."""

    sidecars: Sidecars
    apps: tuple[App, App]
    before: httpx2.Response | None = None

    def start(self) -> None:
        urls = [self.sidecars.open.url, self.sidecars.guarded.url]
        ends = time.monotonic() + PATIENCE_S
        while self.before is None and time.monotonic() < ends:
            for url in urls:
                if status_of(f"{url}/healthz/outbound") == 204:
                    self.before = httpx2.get(f"{url}/healthz", trust_env=False)
                    break
        for app in self.apps:
            app.start()


@pytest.mark.parametrize("runtime", SAME)
def test_a_sidecar_is_healthy_once_its_app_listens(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}", "utf-8")
    settings = {"EVERTURN_DATA_DIR": str(tmp_path / "data"), "SECRETS_FILE": str(tmp_path / "secrets.json")}
    apps = (App(), App())
    sidecars = make_sidecars(runtime, tmp_path, settings, apps)
    late = LateApps(sidecars, apps)
    # In a thread, since a sidecar that is started by one ends with it.
    waiting = threading.Thread(target=late.start)
    waiting.start()
    try:
        sidecars.start()
        after = [status_of(f"{sidecar.url}/healthz") for sidecar in (sidecars.open, sidecars.guarded)]
    finally:
        waiting.join()
        sidecars.stop()
        for app in apps:
            app.stop()

    assert late.before is not None
    assert (late.before.status_code, late.before.json()["errorCode"]) == (500, "ERR_HEALTH_NOT_READY")
    assert after == [204, 204]
