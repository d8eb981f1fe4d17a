"""Dapr's JavaScript SDK on `everturn runtime`: a second witness, of another age of the workflow protocol.

Its program (javascript/app.js) runs once for all tests here; each looks at one thing that it reports.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE_S, SOURCE, free_ports
from tests.e2e.javascript_sdk import PROGRAM, node_modules

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the program said, which ended well."""
    modules, folder = node_modules(), tmp_path_factory.mktemp("javascript")
    (app_port,) = free_ports(1)
    command = ["runtime", "--app-id", "js", "--app-port", str(app_port), "--", "node", str(PROGRAM)]
    ended = subprocess.run(
        [sys.executable, "-m", "everturn.cli", *command],
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": str(SOURCE),
            "NODE_PATH": str(modules),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (said,) = [line for line in ended.stdout.splitlines() if line.startswith("RESULTS ")]
    told: Results = json.loads(said.removeprefix("RESULTS "))
    return told


@pytest.fixture
def workflows(results: Results) -> Results:
    told: Results = results["workflows"]
    return told


@pytest.fixture
def blocks(results: Results) -> Results:
    told: Results = results["blocks"]
    return told


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("activities", "12"),
        ("fan_out", "[2,4,6]"),
        ("timer", '"the time has come"'),
        ("child", "20"),
        ("continued", '"counted down"'),
        ("event", '"approved by Nadia"'),
    ],
)
def test_a_workflow_completes(workflows: Results, what: str, output: str) -> None:
    assert workflows[what] == {"status": "COMPLETED", "output": output}


def test_a_failed_activity_fails_its_workflow(workflows: Results) -> None:
    assert workflows["failed"]["status"] == "FAILED"
    assert "this activity always breaks" in workflows["failed"]["failure"]


def test_more_work_than_the_worker_queues_is_not_lost(workflows: Results) -> None:
    expected = [{"status": "COMPLETED", "output": str(4 * number)} for number in range(1, 151)]

    assert workflows["crowd"] == expected


def test_a_workflow_is_seen_running_and_suspended(workflows: Results) -> None:
    assert workflows["started"] == "RUNNING"
    assert workflows["suspended"] == "SUSPENDED"
    assert workflows["custom_status"] == "waiting for approval"


def test_a_terminated_workflow_has_the_output_that_it_was_given(workflows: Results) -> None:
    assert workflows["terminated"] == {"status": "TERMINATED", "output": '"enough"'}


def test_a_purged_workflow_is_gone(workflows: Results) -> None:
    assert workflows["purged"] is True
    assert workflows["after_purge"] is None


def test_workflows_are_steered_over_http_too(workflows: Results) -> None:
    assert workflows["over_http"] == {"paused": "SUSPENDED", "status": "COMPLETED", "output": '"approved by Nadia"'}


def test_state_is_kept_until_it_is_deleted(blocks: Results) -> None:
    found, missing = blocks["bulk"]

    assert blocks["state"] == {"name": "blue"}
    assert found["data"] == {"name": "blue"}
    assert missing == {"key": "none"}
    assert blocks["deleted"] == ""


def test_a_message_reaches_its_subscriber(blocks: Results) -> None:
    assert blocks["heard"] == {"name": "green"}


def test_an_app_can_be_invoked(blocks: Results) -> None:
    assert blocks["invoked"] == {"greeting": "hello Nadia"}
