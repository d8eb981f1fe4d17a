"""Each program in `examples/`, run as its page says: beside `everturn runtime`, and beside a sidecar of real Dapr."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.sdk.app import App
from tests.conformance.sdk.sidecars import DaprSidecars, Sidecar
from tests.e2e.conftest import SOURCE, Machine
from tests.real_dapr import require_dapr

EXAMPLES = SOURCE.parent / "examples"
# What each program prints; the lines of activities that run side by side come in any order.
PRINTS = {
    "chaining": [
        "writing about sidecars",
        "checking 'sidecars: teh story'",
        "publishing 'sidecars: the story'",
        "COMPLETED: \"published 'sidecars: the story'\"",
    ],
    "fan_out_fan_in": [
        "counting 'one two three'",
        "counting 'four five'",
        "counting 'six'",
        "adding up [3, 2, 1]",
        "COMPLETED: 6 words",
    ],
    "async_http_api": [
        "POST /videos: 202",
        'GET /videos/<id>: 200 {"status": "COMPLETED", "output": "\\"holiday.mp4\\""}',
    ],
    "monitor": [
        "the parcel is in the depot",
        "the parcel is on the road",
        "the parcel is at your door",
        'COMPLETED: "delivered, after 3 looks"',
    ],
    "external_event": [
        "may I order a desk?",
        "may I order a boat?",
        'COMPLETED: "a desk: approved"',
        'COMPLETED: "a boat: nobody answered"',
    ],
    "saga": [
        "booked the flight in Lahore",
        "booked the hotel in Lahore",
        "booked the car in Lahore",
        'COMPLETED: "a trip to Lahore: flight, hotel, car"',
        "booked the flight in Venice",
        "booked the hotel in Venice",
        "cancelled the hotel",
        "cancelled the flight",
        'COMPLETED: "no trip to Venice: there are no cars in Venice"',
    ],
    "child_workflows": [
        "packing a lamp",
        "packing two chairs",
        "sending a box with a lamp",
        "sending a box with two chairs",
        'COMPLETED: ["sent a box with a lamp", "sent a box with two chairs"]',
        'child 1 COMPLETED: "sent a box with a lamp"',
        'child 2 COMPLETED: "sent a box with two chairs"',
    ],
}
IN_ANY_ORDER = {"fan_out_fan_in", "external_event", "child_workflows"}


@pytest.fixture(scope="module")
def sidecar_of_dapr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar of real Dapr, which all programs here have in turn."""
    store = require_dapr()
    apps = (App(), App())
    for app in apps:
        app.start()
    folder = tmp_path_factory.mktemp("dapr")
    secrets = folder / "secrets.json"
    secrets.write_text("{}", "utf-8")
    sidecars = DaprSidecars.make(folder, {"SECRETS_FILE": str(secrets)}, apps, store)
    try:
        sidecars.start()
        yield sidecars.open
    finally:
        sidecars.stop()
        for app in apps:
            app.stop()


def check_lines(name: str, printed: list[str]) -> None:
    if name in IN_ANY_ORDER:
        assert sorted(printed) == sorted(PRINTS[name])
        assert printed[-1] == PRINTS[name][-1]
    else:
        assert printed == PRINTS[name]


def test_every_program_is_run_and_is_in_the_page() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    page = (SOURCE.parent / "docs/how-to/workflow-patterns.md").read_text("utf-8")

    assert set(PRINTS) == names
    assert [name for name in sorted(names) if f"examples/{name}.py" not in page] == []


@pytest.mark.parametrize("name", PRINTS)
async def test_it_runs_beside_its_runtime(machine: Machine, name: str) -> None:
    program = str(EXAMPLES / f"{name}.py")

    running = await machine.run("runtime", "--app-id", "examples", "--", sys.executable, program)
    code = await running.exit_code()

    assert code == 0, running.err.all
    own = ("sidecar of", "data folder", "Workflow engine")
    check_lines(name, [line for line in running.out.all if not line.startswith(own)])


@pytest.mark.parametrize("name", PRINTS)
async def test_it_runs_on_real_dapr(sidecar_of_dapr: Sidecar, machine: Machine, name: str) -> None:
    ports = {"DAPR_HTTP_PORT": str(sidecar_of_dapr.http_port), "DAPR_GRPC_PORT": str(sidecar_of_dapr.grpc_port)}

    running = await machine.run(module=name, PYTHONPATH=str(EXAMPLES), **ports)
    code = await running.exit_code()

    assert code == 0, running.err.all
    check_lines(name, running.out.all)


def test_they_are_plain_programs_of_the_sdk() -> None:
    programs: list[Path] = sorted(EXAMPLES.rglob("*.py"))

    assert [path.name for path in programs if "everturn" in path.read_text("utf-8")] == []
