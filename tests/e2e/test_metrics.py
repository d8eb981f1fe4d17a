"""The metrics of a running system, the page that lists them and the dashboard that shows them name the same things."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from tools.metrics_reference import Described, chat_metrics, memory_metrics

from everturn.settings import Settings
from tests.e2e.conftest import SOURCE, Client, Machine

ROOT = SOURCE.parent
ALL = {metric.name: metric for metric in (*chat_metrics(), *memory_metrics())}
SERIES = {series: metric for metric in ALL.values() for series in metric.series}


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with its legend, and those of the how-to."""
    dashboard: dict[str, Any] = json.loads((ROOT / "deploy/grafana/everturn.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"]
    how_to = (ROOT / "docs/how-to/watch.md").read_text("utf-8")
    for query in re.findall(r"^\| `(.*?)` \|", how_to, re.MULTILINE):
        if "everturn_" in query:
            yield query, ""


def metrics_in(query: str) -> list[Described]:
    """The metrics of a query. Fails for a name that there is not."""
    return [SERIES[name] for name in re.findall(r"everturn_\w+", query)]


@pytest.mark.parametrize(("query", "legend"), list(queries()))
def test_a_query_can_be_read_and_has_metrics_and_labels_that_there_are(query: str, legend: str) -> None:
    promql_parser.parse(query)
    labels = {label for metric in metrics_in(query) for label in (*metric.labels, "le")}

    grouped = re.findall(r"by \((.*?)\)", query)
    used = {label for group in grouped for label in group.split(", ")} | set(re.findall(r"\{\{(\w+)\}\}", legend))

    assert metrics_in(query)
    assert used <= labels
    assert set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)\s*\"", query)) <= labels


def test_each_metric_is_on_the_dashboard() -> None:
    shown = {metric.name for query, _ in queries() for metric in metrics_in(query)}

    assert shown == set(ALL)


def test_prometheus_reads_the_ports_of_both_services() -> None:
    (scrape,) = yaml.safe_load((ROOT / "deploy/grafana/prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    ports = [Settings.model_fields[name].default for name in ("chat_port", "memory_port")]

    assert scrape["static_configs"] == [{"targets": [f"localhost:{port}" for port in ports]}]


async def test_a_running_system_has_the_metrics_that_are_described(machine: Machine, client: Client) -> None:
    await machine.up()
    assert (await client.say("Hi there")).status_code == 200

    for url, described in ((machine.chat_url, chat_metrics()), (machine.memory_url, memory_metrics())):
        text = (await client.http.get(f"{url}/metrics")).text
        kinds = dict(re.findall(r"^# TYPE (everturn_\w+) (\w+)$", text, re.MULTILINE))
        kinds = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}

        assert kinds == {metric.name: metric.kind for metric in described}
