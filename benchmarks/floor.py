"""The floor under the engine: what four commits of SQLite cost by themselves, one after the other and in groups."""

import statistics
import tempfile
import time
from pathlib import Path

import apsw

from benchmarks.report import Figure

_COMMITS = 4  # a three-step workflow begins, and takes each of its three steps
_ROW = b"x" * 2_048
_ROUNDS = 200


def four_commits() -> list[Figure]:
    """Milliseconds of four commits alone, first; then turns a second where 16 and 64 share each commit."""
    with tempfile.TemporaryDirectory(prefix="everturn-bench-") as folder:
        connection = apsw.Connection(str(Path(folder) / "floor.db"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "FULL")
        connection.execute("CREATE TABLE steps (n INTEGER PRIMARY KEY, body BLOB)")
        figures = [
            Figure("engine", "floor: four commits, one after the other, p50", _milliseconds(connection, 1), "ms")
        ]
        for group in (16, 64):
            seconds = _milliseconds(connection, group) / 1e3
            figures.append(Figure("engine", f"floor: four commits each of {group} at once", group / seconds, "turns/s"))
        connection.close()
    return figures


def _milliseconds(connection: apsw.Connection, group: int) -> float:
    """Of four commits, each of `group` rows: the median."""
    times = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(_COMMITS):
            with connection:
                for _ in range(group):
                    connection.execute("INSERT INTO steps (body) VALUES (?)", (_ROW,))
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)
