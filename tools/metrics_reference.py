"""Write docs/reference/metrics.md from the metrics themselves; with `--check`, only compare."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from everturn.chat.metrics import ChatMetrics
from everturn.cli.process import grpc_connections, refusals
from everturn.memory.metrics import MemoryMetrics

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "metrics.md"
HEAD = """# Metrics

`GET /metrics` of each service is Prometheus text. Everything counts from the start of the process; times are in
seconds, and a histogram `NAME` has the series `NAME_bucket`, `NAME_sum` and `NAME_count`. A metric without a sample has
no line but its type. [`deploy/grafana/everturn.json`](../../deploy/grafana/everturn.json) is a dashboard that shows
them: [watch a running system](../how-to/watch.md).

This page is written by `make format` from the code, and `make check` compares it.
"""


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as it is named in queries."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


class _Registry(CollectorRegistry):
    """Remembers what registers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.described: list[Described] = []

    def register(self, collector: object) -> None:
        super().register(collector)  # type: ignore[arg-type]
        assert isinstance(collector, MetricWrapperBase), collector
        (metric,) = collector.describe()
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        # Nothing public names the labels before there is a sample.
        self.described.append(Described(name, metric.type, tuple(collector._labelnames), metric.documentation))  # noqa: SLF001


def chat_metrics() -> list[Described]:
    """Those of the chat service."""
    registry = _Registry()
    ChatMetrics(registry)
    refusals(registry)
    return registry.described


def memory_metrics() -> list[Described]:
    """Those of the memory service."""
    registry = _Registry()
    MemoryMetrics(registry)
    refusals(registry)
    return registry.described


def runtime_metrics() -> list[Described]:
    """Those of `everturn runtime`, on the port of `--metrics-port`."""
    registry = _Registry()
    grpc_connections(registry, lambda: 0)
    refusals(registry)
    return registry.described


def page() -> str:
    parts = {
        "Chat service": chat_metrics(),
        "Agent memory service": memory_metrics(),
        "`everturn runtime --metrics-port PORT`": runtime_metrics(),
    }
    return "\n".join([HEAD, *(f"## {title}\n\n{_table(metrics)}" for title, metrics in parts.items())])


def _table(metrics: Iterable[Described]) -> str:
    rows = (
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |\n"
        for each in metrics
    )
    return "| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        PAGE.write_text(page(), "utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        print("metrics: docs/reference/metrics.md is not what the metrics are: run make format")
        return 1
    print("metrics: fine")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
