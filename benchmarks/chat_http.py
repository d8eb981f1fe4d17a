"""`POST /chat/` as in `chat`, with the real client of models, over HTTP, against an endpoint on this machine."""

from benchmarks.chat import turns_not_completed
from benchmarks.load import post_chat
from benchmarks.model_server import ModelServer
from benchmarks.report import Figure
from benchmarks.service import pause, started

_WARM_UP_S = 3
_CONNECTIONS = 64
# Conversations that go on: each has some twenty turns, of which eight make a summary.
_SESSIONS = 128
# The last summaries of a session come when it has been quiet for 30 s.
_QUIET_S = 36


def run(seconds: float) -> list[Figure]:
    with ModelServer() as model, started(**model.settings) as service:
        post_chat(service.chat_url, connections=4, seconds=_WARM_UP_S, sessions=_SESSIONS)
        cpu, turns = service.cpu_s(), service.metric("everturn_turns_total")
        load = post_chat(service.chat_url, connections=_CONNECTIONS, seconds=seconds, sessions=_SESSIONS)
        cpu_ms = (service.cpu_s() - cpu) * 1e3 / (service.metric("everturn_turns_total") - turns)
        failed = load.errors + turns_not_completed(service)
        pause(_QUIET_S)
        calls_a_turn = model.calls() / service.metric("everturn_turns_total")
    return [
        Figure.at_least("chat-http", "64 connections", load.per_second, "turns/s", 150),
        Figure("chat-http", "64 connections, p50", load.p50_ms, "ms"),
        Figure("chat-http", "64 connections, p99", load.p99_ms, "ms"),
        Figure("chat-http", "CPU a turn, 64 connections", cpu_ms, "ms"),
        Figure.at_most("chat-http", "model calls a turn, summaries with it", calls_a_turn, "", 1.2),
        Figure.at_most("chat-http", "requests that failed", failed, "", 0),
    ]
