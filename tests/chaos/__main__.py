"""`python -m tests.chaos`: worlds until 50,000 faults have taken place; with a seed behind it that one world alone."""

import itertools
import random
import sys
import time

from tests.chaos.campaign import counted, run, run_all, soaks, sweeps, tell, told
from tests.chaos.world import Report

_FAULTS = 50_000
# Seeds that are handed out at a time, and seconds between two lines of progress.
_BATCH = 200
_TOLD_EVERY_S = 10.0


def main(words: list[str]) -> int:
    if words and not words[0].isdigit():
        try:
            report = run(" ".join(words))
        except ValueError as error:
            sys.stderr.write(
                f"{error}; there are: soak N, overlap N, pass N, sweep SHAPE MOMENT, or a number of faults\n"
            )
            return 2
        tell(told(report))
        return 1 if report.found else 0
    return _campaign(int(words[0]) if words else _FAULTS)


def _campaign(wanted: int) -> int:
    first, begun = random.SystemRandom().randrange(10**9), time.monotonic()
    tell(f"seeds: every sweep, then soak {first} and on")
    reports: list[Report] = []
    total, told_at = 0, begun
    batches = itertools.chain([sweeps()], (soaks(first + start, _BATCH) for start in itertools.count(0, _BATCH)))
    for batch in batches:
        for report in run_all(batch):
            reports.append(report)
            total += report.total
            if report.found:
                tell(told(report))
            if (now := time.monotonic()) - told_at >= _TOLD_EVERY_S:
                told_at = now
                tell(_progress(total, wanted, now - begun))
        if total >= wanted:
            break
    tell(", ".join(f"{kind}: {count}" for kind, count in counted(reports).most_common()))
    failed = [report for report in reports if report.found]
    tell(f"{len(failed)} worlds failed" if failed else "nothing was lost, doubled or out of order")
    return 1 if failed else 0


def _progress(total: int, wanted: int, seconds: float) -> str:
    rate = total / seconds
    left_s = (wanted - total) / rate if rate else 0.0
    if total >= wanted:
        return f"{total} faults, {wanted} were wanted: the last worlds of a batch end"
    return f"{total} of {wanted} faults, {rate:.0f} a second, {left_s / 60:.0f} min left"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
