"""Ten thousand unfinished turns, a kill, and the time until all of them run again."""

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.client import accept_all
from benchmarks.report import Figure
from benchmarks.service import Service, pause

_TURNS = 10_000
_LIMIT_S = 300.0


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="everturn-bench-") as name:
        folder = Path(name)
        calls = folder / "calls"
        settings = {
            "BENCH_CALLS": str(calls),
            "EVERTURN_MAX_MODEL_CALLS": "20000",
            "EVERTURN_GENERATE_TIMEOUT_S": "3600",
        }
        with Service(folder, settings) as service:
            asyncio.run(accept_all(service.chat_url, _TURNS))
            _wait_for_calls(calls, _TURNS)
            service.kill()
        calls.unlink()
        begun = time.perf_counter()
        with Service(folder, settings) as service:
            ready_s = time.perf_counter() - begun
            resumed = service.metric("everturn_turns_resumed_total")
            _wait_for_calls(calls, _TURNS)
            running_s = time.perf_counter() - begun
            cpu_s, memory_mb = service.cpu_s(), service.rss_mb()
            service.kill()
    return [
        Figure("recovery", "unfinished turns that were found", resumed, "turns"),
        Figure("recovery", "start until it answers", ready_s, "s"),
        Figure.at_most("recovery", f"start until {_TURNS:,} turns run again", running_s, "s", 6),
        Figure("recovery", "CPU until then", cpu_s, "s"),
        Figure("recovery", "memory with all of them running", memory_mb, "MB"),
    ]


def _wait_for_calls(calls: Path, count: int) -> None:
    deadline = time.perf_counter() + _LIMIT_S
    while not calls.exists() or calls.stat().st_size < count:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"only {calls.stat().st_size} of {count} turns ran within {_LIMIT_S:g} s")
        pause(0.01)
