"""The whole `POST /chat/` over real sockets: claim, workflow, memory service, event and summary; load by wrk."""

import httpx2

from benchmarks.load import Load, post_chat
from benchmarks.report import Figure
from benchmarks.service import Service, started

_SESSIONS = 512
_WARM_UP_S = 3
_AT_ONCE = 64


def run(seconds: float) -> list[Figure]:
    with started() as service:
        post_chat(service.chat_url, connections=4, seconds=_WARM_UP_S, sessions=_SESSIONS)
        alone, alone_cpu_ms = _loaded(service, 1, seconds)
        full, full_cpu_ms = _loaded(service, _AT_ONCE, seconds)
        turns = service.metric("everturn_turns_total")
        failed = alone.errors + full.errors + turns_not_completed(service)
        stored_kb = service.stored_mb() * 1e3 / turns
    return [
        Figure.at_most("chat", "one connection, p50", alone.p50_ms, "ms", 6),
        Figure("chat", "one connection, p99", alone.p99_ms, "ms"),
        Figure("chat", "CPU a turn, one connection", alone_cpu_ms, "ms"),
        Figure.at_least("chat", "64 connections", full.per_second, "turns/s", 250),
        Figure("chat", "64 connections, p50", full.p50_ms, "ms"),
        Figure("chat", "64 connections, p99", full.p99_ms, "ms"),
        Figure.at_most("chat", "CPU a turn, 64 connections", full_cpu_ms, "ms", 4),
        Figure("chat", "stored a turn", stored_kb, "kB"),
        Figure.at_most("chat", "requests that failed", failed, "", 0),
    ]


def _loaded(service: Service, connections: int, seconds: float) -> tuple[Load, float]:
    """What wrk saw, and the service's milliseconds of CPU a turn, its summaries with it as far as they came."""
    cpu, turns = service.cpu_s(), service.metric("everturn_turns_total")
    load = post_chat(service.chat_url, connections=connections, seconds=seconds, sessions=_SESSIONS)
    return load, (service.cpu_s() - cpu) * 1e3 / (service.metric("everturn_turns_total") - turns)


def turns_not_completed(service: Service) -> int:
    """Turns that ended in another way."""
    text = httpx2.get(f"{service.chat_url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("everturn_turns_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if 'status="completed"' not in line)
