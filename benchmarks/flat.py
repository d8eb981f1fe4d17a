"""Whether a turn costs the same at the end of a long conversation as at its beginning."""

import time
from pathlib import Path

import apsw

from benchmarks.client import talk
from benchmarks.load import post_chat
from benchmarks.report import Figure
from benchmarks.service import Service, started

_TURNS = 10_000
_SAMPLE = 200
_PIECE_S = 10
# The window of history is full after some eighty turns of this length; a smaller one is full within the first ten, so
# that the first sample and the last do the same work.
_WINDOW_TOKENS = "1000"


def run() -> list[Figure]:
    with started(EVERTURN_HISTORY_TOKENS=_WINDOW_TOKENS) as service:
        talk(service.chat_url, "warm-up", _SAMPLE)
        first = _sample(service, "long")
        done = _SAMPLE
        while done < _TURNS - _SAMPLE:
            load = post_chat(service.chat_url, connections=1, seconds=_PIECE_S, sessions=1, session="long")
            done += load.requests
        last = _sample(service, "long")
    return [
        Figure("flat", f"CPU a turn, turns 1 to {_SAMPLE}", first[0], "ms"),
        Figure("flat", f"CPU a turn, after {done:,} turns", last[0], "ms"),
        Figure("flat", f"stored a turn, turns 1 to {_SAMPLE}", first[1], "kB"),
        Figure("flat", f"stored a turn, after {done:,} turns", last[1], "kB"),
        Figure("flat", f"time of a turn, turns 1 to {_SAMPLE}", first[2], "ms"),
        Figure("flat", f"time of a turn, after {done:,} turns", last[2], "ms"),
        Figure.at_most("flat", "growth of CPU a turn", (last[0] / first[0] - 1) * 100, "%", 20),
        Figure.at_most("flat", "growth of what is stored a turn", (last[1] / first[1] - 1) * 100, "%", 20),
    ]


def _sample(service: Service, session: str) -> tuple[float, float, float]:
    """Milliseconds of CPU, kilobytes stored and milliseconds that passed, each a turn."""
    cpu, stored, begun = service.cpu_s(), stored_bytes(service), time.perf_counter()
    talk(service.chat_url, session, _SAMPLE)
    seconds = time.perf_counter() - begun
    return (
        (service.cpu_s() - cpu) * 1e3 / _SAMPLE,
        (stored_bytes(service) - stored) / 1e3 / _SAMPLE,
        seconds * 1e3 / _SAMPLE,
    )


def stored_bytes(service: Service) -> int:
    """Pages in use, those in the write-ahead log with them."""
    path: Path = service.folder / "data" / "everturn.db"
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        size, count, free = (int(connection.pragma(name)) for name in ("page_size", "page_count", "freelist_count"))
    finally:
        connection.close()
    return size * (count - free)
