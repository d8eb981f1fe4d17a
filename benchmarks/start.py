"""From nothing to the first answer, and what the process takes in memory after ten thousand turns."""

import time

from benchmarks.load import post_chat
from benchmarks.report import Figure, median
from benchmarks.service import started

_STARTS = 3
_TURNS = 10_000
_CONNECTIONS = 16
_SESSIONS = 512
_PIECE_S = 10


def run() -> list[Figure]:
    first_answers = [_first_answer_s() for _ in range(_STARTS)]
    with started() as service:
        service.say("Hello", "warm-up")
        fresh_mb = service.rss_mb()
        sent = 0
        while sent < _TURNS:
            sent += post_chat(service.chat_url, connections=_CONNECTIONS, seconds=_PIECE_S, sessions=_SESSIONS).requests
        full_mb = service.rss_mb()
    return [
        Figure.at_most("start", "cold start to the first answer, median", median(first_answers), "s", 3),
        Figure("start", "memory after the first answer", fresh_mb, "MB"),
        Figure.at_most("start", f"memory after {_TURNS:,} turns", full_mb, "MB", 150),
    ]


def _first_answer_s() -> float:
    begun = time.perf_counter()
    with started() as service:
        service.say("Hello", "first")
        return time.perf_counter() - begun
