"""`make bench-dapr`: a turn on real Dapr, in one process and apart on the embedded runtime, and the floor under each.

All three systems run at once and are loaded in turn, in short pieces, so that a slow minute of the machine is a slow
minute for each of them. A figure is the median of its pieces; a piece begins when its system is idle.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from tools.dapr.build import BuildError, build
from tools.dapr.commands import MissingRedisError
from tools.dapr.system import SystemFailedError

from benchmarks.dapr_systems import APART, DAPR, ONE_PROCESS, Running, apart, in_one_process, on_dapr
from benchmarks.load import Load, NoWrkError, post_chat
from benchmarks.report import Figure, Report, median

_PATHS = {"bare workflow": "/bench/bare", "floor": "/bench/floor", "turn": "/chat/"}
# Into how many pieces a load is cut, by how many requests are sent at once: many at once need time to be answered.
_PIECES = {1: 5, 16: 3, 64: 3}
_WARM_UP_S = 2
_SHORTEST_S = 1  # of a load by wrk
# For each request that is sent at once: a session has several turns in a piece, as in use, and none waits for another.
_SESSIONS_EACH = 4
_WARM_UP_WIDTH = 4
# Issue 5: of the turn on real Dapr over the floor on it, one at a time.
_MOST_OVER_FLOOR = 1.3


@dataclass(slots=True)
class Cell:
    """What was seen of one kind of request at one width on one system. `cpu_ms`: CPU a request, by process.

    `unanswered` pieces were too short for a single answer and are in no figure.
    """

    loads: list[Load] = field(default_factory=list)
    cpu_ms: list[dict[str, float]] = field(default_factory=list)
    unanswered: int = 0

    @property
    def p50_ms(self) -> float:
        return median([load.p50_ms for load in self.loads])

    @property
    def per_second(self) -> float:
        return median([load.per_second for load in self.loads])

    @property
    def errors(self) -> int:
        return sum(load.errors for load in self.loads)

    def cpu_of(self, process: str) -> float:
        return median([each[process] for each in self.cpu_ms])


# By system, kind and width.
Cells = dict[tuple[str, str, int], Cell]


def main() -> int:
    options = _options()
    report = Report(seed=0)
    try:
        build()
        report.begin()
        report.add(_figures(_measure(options.seconds)))
    except (BuildError, MissingRedisError, SystemFailedError, NoWrkError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\nwritten to {report.save()}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dapr", description="Measure Everturn on real Dapr.")
    parser.add_argument(
        "--seconds", type=float, default=15, help="length of each of the 27 loads, taken in three to five pieces"
    )
    return parser.parse_args()


def _measure(seconds: float) -> Cells:
    cells: Cells = defaultdict(Cell)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="everturn-bench-")))
        systems = [
            stack.enter_context(on_dapr(folder / "dapr")),
            stack.enter_context(in_one_process(folder / "up")),
            stack.enter_context(apart(folder / "apart")),
        ]
        for system in systems:
            for path in _PATHS.values():
                _post(system, _WARM_UP_WIDTH, _WARM_UP_S, path)
        # The narrow loads first: the summaries of a wide one's many sessions come half a minute later.
        for width, pieces in _PIECES.items():
            for _ in range(pieces):
                for system in systems:
                    for kind in _PATHS:
                        _load(cells[system.name, kind, width], system, kind, width, seconds / pieces)
    return cells


def _load(cell: Cell, system: Running, kind: str, width: int, seconds: float) -> None:
    system.settle()
    before = system.cpu_s()
    length = max(_SHORTEST_S, round(seconds))
    load = _post(system, width, length, _PATHS[kind])
    after = system.cpu_s()
    if not load.requests:
        cell.unanswered += 1
        return
    cell.loads.append(load)
    cell.cpu_ms.append({name: (after[name] - before[name]) * 1e3 / load.requests for name in after})


def _post(system: Running, width: int, seconds: float, path: str) -> Load:
    sessions = width * _SESSIONS_EACH
    return post_chat(system.chat_url, connections=width, seconds=seconds, sessions=sessions, path=path)


def _figures(cells: Cells) -> list[Figure]:
    figures = [figure for system in (DAPR, ONE_PROCESS, APART) for figure in _figures_of(cells, system)]
    for kind in ("floor", "turn"):
        cell = cells[DAPR, kind, 1]
        processes = cell.cpu_ms[0] if cell.cpu_ms else ()
        figures += [Figure("dapr", f"{DAPR}: CPU of {each}, {kind}", cell.cpu_of(each), "ms") for each in processes]
    failed = sum(cell.errors for cell in cells.values())
    unanswered = sum(cell.unanswered for cell in cells.values())
    return [
        *figures,
        Figure.at_most("dapr", "requests that failed", failed, "", 0),
        Figure("dapr", "pieces too short for an answer", unanswered, ""),
    ]


def _figures_of(cells: Cells, system: str) -> list[Figure]:
    figures = []
    for kind, width in product(_PATHS, _PIECES):
        cell = cells[system, kind, width]
        if cell.loads and width == 1:
            figures.append(Figure("dapr", f"{system}: {kind}, p50", cell.p50_ms, "ms"))
        elif cell.loads:
            figures.append(Figure("dapr", f"{system}: {kind}, {width} at once", cell.per_second, "a second"))
    ratios = _over_floor(cells, system)
    if ratios and system == DAPR:
        name = f"{system}: turn over its floor"
        figures.append(Figure.at_most("dapr", name, median(ratios), "times", _MOST_OVER_FLOOR))
    elif ratios:
        figures.append(Figure("dapr", f"{system}: turn over its floor", median(ratios), "times"))
    return figures


def _over_floor(cells: Cells, system: str) -> list[float]:
    """How many times as long as the floor a turn takes, one at a time: one ratio for each pair of pieces."""
    turns, floors = cells[system, "turn", 1].loads, cells[system, "floor", 1].loads
    return [turn.p50_ms / floor.p50_ms for turn, floor in zip(turns, floors, strict=False)]


if __name__ == "__main__":
    sys.exit(main())
