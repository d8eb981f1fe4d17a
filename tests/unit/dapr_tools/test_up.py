"""`make dapr` and `make up-dapr` where they cannot work: one plain sentence. Files that name the same things agree."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from tools.dapr import build, up
from tools.dapr.layout import Store, usual_ports

from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.settings import load_settings

ROOT = Path(__file__).parent.parent.parent.parent


def run(module: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {"HOME": str(folder), "PATH": str(folder), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=folder,
        env=given | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which something stands for the binaries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = build.binaries_folder()
    folder.mkdir(parents=True)
    for name in build.BINARIES:
        (folder / name).touch(mode=0o755)
    return tmp_path


@pytest.mark.parametrize("module", ["tools.dapr.build", "tools.dapr.up"])
def test_without_go_one_sentence_says_what_to_install(tmp_path: Path, module: str) -> None:
    done = run(module, tmp_path)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "install Go" in line


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\n")
    (tmp_path / "go").chmod(0o755)
    (tmp_path / "file").touch()

    done = run("tools.dapr.build", tmp_path, XDG_CACHE_HOME=str(tmp_path / "file"))

    assert done.returncode == 1
    assert "XDG_CACHE_HOME" in done.stderr.splitlines()[-1]


def test_a_build_that_fails_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "go").chmod(0o755)

    done = run("tools.dapr.build", tmp_path)

    assert done.returncode == 1
    assert "GOPROXY" in done.stderr.splitlines()[-1]
    assert list((tmp_path / ".cache" / "everturn" / "dapr").iterdir()) == []


def test_what_is_built_is_not_built_again(built: Path) -> None:
    done = run("tools.dapr.build", built, XDG_CACHE_HOME=str(built))

    assert done.returncode == 0
    assert str(build.binaries_folder()) in done.stderr


def test_without_redis_one_sentence_says_what_to_install(built: Path) -> None:
    done = run("tools.dapr.up", built, XDG_CACHE_HOME=str(built))

    assert done.returncode == 1
    assert "redis-server" in done.stderr.splitlines()[-1]


def test_a_wrong_setting_is_refused(built: Path) -> None:
    done = run("tools.dapr.up", built, XDG_CACHE_HOME=str(built), EVERTURN_CHAT_PORT="soon")

    assert done.returncode == 2
    assert "EVERTURN_CHAT_PORT" in done.stderr


def test_what_the_settings_file_says_reaches_services_and_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERTURN_MODEL_NAME", "of-the-environment")
    monkeypatch.delenv("APP_API_TOKEN", raising=False)
    lines = [
        "app_api_token=t",
        "DAPR_HTTP_PORT=9",
        "EVERTURN_MODEL_NAME=of-the-file",
        "EVERTURN_MODEL_BASE_URL=http://h/v1",
    ]
    (tmp_path / ".env").write_text("\n".join(lines), "utf-8")

    system = up.compose(load_settings(), tmp_path, threading.Event(), Store.REDIS)

    assert system.settings == {"APP_API_TOKEN": "t", "EVERTURN_MODEL_BASE_URL": "http://h/v1"}
    assert system.settings_of_sidecars()["APP_API_TOKEN"] == "t"


def test_the_file_for_the_dapr_cli_names_the_same_apps_and_ports() -> None:
    ports = usual_ports(8010, 8001)

    told = {app["appID"]: app for app in yaml.safe_load((ROOT / "dapr.yaml").read_text("utf-8"))["apps"]}

    for app_id, expected in ((CHAT_APP_ID, ports.chat), (MEMORY_APP_ID, ports.memory)):
        app = told[app_id]
        assert (app["appPort"], app["daprHTTPPort"], app["daprGRPCPort"]) == (
            expected.app,
            expected.http,
            expected.grpc,
        )
        assert str(expected.app) in app["command"]
