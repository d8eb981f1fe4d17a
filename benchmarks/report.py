"""Figures: a line each on stdout, and all of a run in `benchmarks/results/*.json` with the machine and the versions."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import apsw

_RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("everturn", "dapr", "openai-agents", "fastapi", "uvicorn", "uvloop", "apsw", "pydantic")
_SPIN = 200_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `target` is what issue 4 asks for, in its words; `met` whether it is reached."""

    benchmark: str
    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None

    @classmethod
    def at_most(cls, benchmark: str, name: str, value: float, unit: str, target: float) -> "Figure":
        return cls(benchmark, name, value, unit, f"≤ {target:g}", value <= target)

    @classmethod
    def at_least(cls, benchmark: str, name: str, value: float, unit: str, target: float) -> "Figure":
        return cls(benchmark, name, value, unit, f"≥ {target:g}", value >= target)


@dataclass(slots=True)
class Report:
    """The figures of a run, printed as they come. `seed` is where random ids and loads begin."""

    seed: int
    figures: list[Figure] = field(default_factory=list)
    spin_ms: list[float] = field(default_factory=list)

    def begin(self) -> None:
        print(f"machine: {machine()['cpu']}, {machine()['cores']} cores; seed {self.seed}")
        print(f"{'benchmark':<10} {'figure':<44} {'value':>12} {'unit':<9} {'target':<10}")

    def add(self, figures: Sequence[Figure]) -> None:
        self.figures.extend(figures)
        self.spin_ms.append(spin_ms())
        for figure in figures:
            verdict = {True: "reached", False: "MISSED", None: ""}[figure.met]
            print(
                f"{figure.benchmark:<10} {figure.name:<44} {shown(figure.value):>12} {figure.unit:<9} "
                f"{figure.target:<10} {verdict}".rstrip(),
                flush=True,
            )

    def save(self) -> Path:
        """Write the run down; where."""
        _RESULTS.mkdir(exist_ok=True)
        at = datetime.now(UTC)
        path = _RESULTS / f"{at:%Y%m%dT%H%M%SZ}.json"
        body = {
            "at": at.isoformat(timespec="seconds"),
            "seed": self.seed,
            "machine": machine(),
            "versions": versions(),
            "commit": _commit(),
            # How long the same small computation took after each benchmark: if it differs, others used the machine.
            "spin_ms": [round(value, 2) for value in self.spin_ms],
            "figures": [asdict(figure) for figure in self.figures],
        }
        path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
        return path


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def spin_ms() -> float:
    """Milliseconds that a fixed computation takes now: it tells how quiet the machine is."""
    begun = time.perf_counter()
    sum(range(_SPIN))
    for number in range(_SPIN):
        _ = number * number
    return (time.perf_counter() - begun) * 1e3


def machine() -> dict[str, str | int | float]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text("utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_1m": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], "sqlite": apsw.sqlite_lib_version()} | {
        name: version(name) for name in _PACKAGES
    }


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=_RESULTS.parent
    )
    return found.stdout.strip()
