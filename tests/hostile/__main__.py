"""`make hostile`: run the attacks, print a table, end with 1 if one is not refused."""

import argparse
import asyncio
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.hostile.attack import Attack, Row
from tests.hostile.catalogue import attacks, run_all
from tests.hostile.stages import Stages

_COLUMNS = ("attack", "expected", "seen", "peak MB", "grown MB", "stall ms", "connections")


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    chosen = attacks(tuple(options.words))
    given = {name: url for name in ("chat", "memory", "sidecar") if (url := getattr(options, name))}
    begun = time.perf_counter()
    rows = list(asyncio.run(_run(chosen, given, large=not options.small)).values())
    _print_table(rows)
    through = [row for row in rows if row.seen is not None and not row.seen.refused]
    untried = sum(row.seen is None for row in rows)
    print(
        f"\n{len(rows)} attacks in {time.perf_counter() - begun:.0f} s: "
        f"{len(rows) - len(through) - untried} as expected, "
        f"{len(through)} not" + (f", {untried} not tried: they need a system of their own" if untried else "")
    )
    if options.record is not None:
        options.record.write_text(json.dumps(_record(rows, large=not options.small), indent=1) + "\n", "utf-8")
    return 1 if through else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make hostile",
        description="Attack a system on this machine. Without an address, systems are started and ended for it.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only attacks whose name has one of these")
    for name in ("chat", "memory", "sidecar"):
        parser.add_argument(f"--{name}", metavar="URL", help=f"attack this {name} address; it should be one to lose")
    parser.add_argument("--small", action="store_true", help="in the sizes and times of the tests")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the rows to this file, as JSON")
    return parser.parse_args(arguments)


async def _run(chosen: Sequence[Attack], given: Mapping[str, str], *, large: bool) -> Mapping[str, Row]:
    ended = 0

    def report(row: Row) -> None:
        nonlocal ended
        ended += 1
        print(f"[{ended}/{len(chosen)}] {row.attack.name}: {_verdict(row)}", file=sys.stderr, flush=True)

    async with Stages(large=large, given=given) as stages:
        return await run_all(chosen, stages, report)


def _verdict(row: Row) -> str:
    if row.seen is None:
        return "not tried"
    return row.seen.what if row.seen.refused else f"GETS THROUGH: {row.seen.what}"


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    if figures is None:
        return (row.attack.name, row.attack.expected, _verdict(row), "", "", "", "")
    return (
        row.attack.name,
        row.attack.expected,
        _verdict(row),
        "" if figures.peak_mb is None else f"{figures.peak_mb:.0f}",
        "" if figures.grown_mb is None else f"{figures.grown_mb:.0f}",
        f"{figures.stall_s * 1000:.0f}",
        "" if figures.connections is None else str(figures.connections),
    )


def _print_table(rows: Sequence[Row]) -> None:
    cells = [_COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _record(rows: Sequence[Row], *, large: bool) -> dict[str, Any]:
    measured = [
        {
            "attack": row.attack.name,
            "system": row.attack.stage,
            "expected": row.attack.expected,
            "seen": row.seen.what,
            "refused": row.seen.refused,
            "peak_mb": None if row.figures.peak_mb is None else round(row.figures.peak_mb),
            "grown_mb": None if row.figures.grown_mb is None else round(row.figures.grown_mb),
            "stall_ms": round(row.figures.stall_s * 1000),
            "connections": row.figures.connections,
        }
        for row in rows
        if row.seen is not None and row.figures is not None
    ]
    machine = {"system": platform.platform(), "python": platform.python_version()}
    return {"at": datetime.now(UTC).isoformat(), "large": large, "machine": machine, "rows": measured}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
