"""Many worlds, each by its seed, on all processors; and one again, by the seed that a failure names."""

import gc
import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.chaos.overlaps import OVERLAPS, PASSES
from tests.chaos.power import Moment
from tests.chaos.shapes import PAID_SHAPES, SHAPES
from tests.chaos.world import Report, overlap_setting_of, pass_setting_of, soak, sweep

_ALL = SHAPES | PAID_SHAPES | OVERLAPS | PASSES
_KINDS = ("soak", "overlap", "pass")


def sweeps() -> list[str]:
    """The seeds of the worlds in which the machine dies at each write of each shape, at each of the moments."""
    return [f"sweep {name} {moment}" for name in _ALL for moment in Moment]


def soaks(first: int, count: int) -> list[str]:
    return [f"{kind} {number}" for number in range(first, first + count) for kind in _KINDS]


def run(seed: str) -> Report:
    """The world of `seed`. Raises ValueError for one that there is not."""
    with warnings.catch_warnings():
        # What a dead machine was about to do is never done.
        warnings.simplefilter("ignore", RuntimeWarning)
        match seed.split():
            case ["soak", number] if number.isdigit():
                return soak(int(number))
            case ["overlap", number] if number.isdigit():
                return soak(int(number), setting=overlap_setting_of(int(number)), kind="overlap")
            case ["pass", number] if number.isdigit():
                return soak(int(number), setting=pass_setting_of(int(number)), kind="pass")
            case ["sweep", name, moment] if name in _ALL and moment in list(Moment):
                return sweep(name, Moment(moment))
            case _:
                raise ValueError(f"no world has the seed {seed!r}")


def run_all(seeds: Iterable[str]) -> Iterator[Report]:
    """The worlds of `seeds` as they end, on as many processors as there are."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), initializer=_freeze_gc) as pool:
        yield from pool.imap_unordered(run, seeds)


def _freeze_gc() -> None:
    """What was imported stays, and each life leaves much to collect: look less often. A fifth of the time is saved."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def told(report: Report) -> str:
    """One line of a report, and how to see a failure again."""
    line = f"{report.seed}: {report.total} faults in {report.lives} lives, {report.writes} writes"
    if not report.found:
        return line
    found = "\n  ".join(report.found)
    return f"{line}\n  {found}\n  again: .venv/bin/python -m tests.chaos {report.seed}"


def tell(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def counted(reports: Iterable[Report]) -> Counter[str]:
    """Faults by kind."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.faults)
    return +total
