"""From nothing to the first answer, and what the process takes in memory after ten thousand turns."""

import http.client
import json
import time
from urllib.parse import urlsplit

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
    first_words = [_first_words_s() for _ in range(_STARTS)]
    with started() as service:
        service.say("Hello", "warm-up")
        fresh_mb = service.rss_mb()
        sent = 0
        while sent < _TURNS:
            sent += post_chat(service.chat_url, connections=_CONNECTIONS, seconds=_PIECE_S, sessions=_SESSIONS).requests
        full_mb = service.rss_mb()
    return [
        Figure.at_most("start", "cold start to the first answer, median", median(first_answers), "s", 3),
        Figure.at_most("start", "cold start to the first words, median", median([s for s, _ in first_words]), "s", 2),
        Figure("start", "CPU until the first words, median", median([cpu_s for _, cpu_s in first_words]), "s"),
        Figure("start", "memory after the first answer", fresh_mb, "MB"),
        Figure.at_most("start", f"memory after {_TURNS:,} turns", full_mb, "MB", 140),
    ]


def _first_answer_s() -> float:
    begun = time.perf_counter()
    with started() as service:
        service.say("Hello", "first")
        return time.perf_counter() - begun


def _first_words_s() -> tuple[float, float]:
    """Seconds, and seconds of CPU, until somebody who has a message ready sees the first words of its answer."""
    begun = time.perf_counter()
    with started() as service:
        address = urlsplit(service.chat_url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        body = json.dumps({"user_id": "first", "text": "Hello"})
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        connection.request("POST", "/chat/", body, headers)
        with connection.getresponse() as stream:
            next(line for line in stream if b"TEXT_MESSAGE_CONTENT" in line)
        return time.perf_counter() - begun, service.cpu_s()
